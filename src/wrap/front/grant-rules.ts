import type { Mailbox } from '../../smtp/address.ts'
import type { FrontRules, Refusal, Reservation } from '../../smtp/transaction.ts'
import {
  type MailRules,
  messageCounts,
  recipientCounts,
  refuseCount,
  refuseRecipient,
  refuseSender,
  reserve,
} from '../mail-rules.ts'

const EXPIRED: Refusal = {
  rule: 'expired',
  reply: '450 4.7.1 open the mailbox by POP3 again, then send',
}

/** The rules of the policy service, for a session of a granted client behind the front. */
export class GrantRules implements FrontRules {
  readonly #rules: MailRules
  readonly #isGranted: () => boolean

  /** `isGranted`: whether the grant still holds now. */
  constructor(rules: MailRules, isGranted: () => boolean) {
    this.#rules = rules
    this.#isGranted = isGranted
  }

  sender(sender: Mailbox | undefined): Refusal | undefined {
    if (!this.#isGranted()) return EXPIRED
    const foreign = refuseSender(this.#rules, sender === undefined ? '' : addressOf(sender))
    return foreign ?? refuseCount(messageCounts(this.#rules))
  }

  message(): Refusal | Reservation {
    return reserve(messageCounts(this.#rules))
  }

  recipient(recipient: Mailbox | undefined): Refusal | Reservation {
    const refusal = refuseRecipient(this.#rules, recipient === undefined ? '' : addressOf(recipient))
    return refusal ?? reserve(recipientCounts(this.#rules))
  }
}

/** As the policy service has it: unquoted, in UTF-8. */
const addressOf = ({ local, domain }: Mailbox): string =>
  Buffer.from(domain === undefined ? local : `${local}@${domain.replace(/\.$/, '')}`, 'latin1').toString()
