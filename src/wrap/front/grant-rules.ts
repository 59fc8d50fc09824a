import { refuseRecipient, refuseSender } from '../../grants/devices/mail-rules.ts'
import type { Mailbox } from '../../smtp/address.ts'
import type { FrontRules, Refusal, Reservation } from '../../smtp/transaction.ts'
import type { RelayGrant } from '../decision.ts'
import { type MailRules, messageCounts, recipientCounts, refuseCount, reserve } from '../mail-rules.ts'
import type { GrantTerm } from './grant-term.ts'

/** The rules of the policy service, for a session of a granted client behind the front. */
export class GrantRules implements FrontRules {
  readonly #term: GrantTerm
  readonly #rulesFor: (grant: RelayGrant) => MailRules
  readonly #onAccepted: () => void

  /** `onAccepted` is called for each message that the server has accepted. */
  constructor(term: GrantTerm, rulesFor: (grant: RelayGrant) => MailRules, onAccepted: () => void) {
    this.#term = term
    this.#rulesFor = rulesFor
    this.#onAccepted = onAccepted
  }

  get #rules(): MailRules {
    return this.#rulesFor(this.#term.grant)
  }

  sender(sender: Mailbox | undefined): Refusal | undefined {
    const rules = this.#rules
    return (
      this.#term.refusal() ??
      refuseSender(rules, sender === undefined ? '' : addressOf(sender)) ??
      refuseCount(messageCounts(rules))
    )
  }

  message(): Refusal | Reservation {
    const reserved = reserve(messageCounts(this.#rules))
    return 'rule' in reserved ? reserved : { ...reserved, accept: this.#onAccepted }
  }

  recipient(recipient: Mailbox | undefined): Refusal | Reservation {
    const refusal = refuseRecipient(this.#rules, recipient === undefined ? '' : addressOf(recipient))
    return refusal ?? reserve(recipientCounts(this.#rules))
  }
}

/** The address in the form of the policy service: unquoted, as text. */
const addressOf = ({ local, domain }: Mailbox): string =>
  Buffer.from(domain === undefined ? local : `${local}@${domain}`, 'latin1').toString()
