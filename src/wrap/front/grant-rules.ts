import { type RelayGrant, refuseRecipient, refuseSender, rulesOfSender } from '../../grants/devices/mail-rules.ts'
import type { Mailbox } from '../../smtp/address.ts'
import type { FrontRules, Refusal, Reservation } from '../../smtp/transaction.ts'
import { loggedRules, type MailRules, messageCounts, recipientCounts, refuseCount, reserve } from '../mail-rules.ts'
import type { GrantTerm } from './grant-term.ts'

/** The rules for the mail of a granted client (MailRules), for a session behind the front. */
export class GrantRules implements FrontRules {
  readonly #term: GrantTerm
  readonly #rulesFor: (grant: RelayGrant) => MailRules
  /** The rules of the sender of the latest MAIL. */
  #mail: MailRules | undefined
  readonly #onAccepted: (device: string | undefined) => void

  /** `onAccepted` is called with the device of each message that the server has accepted. */
  constructor(
    term: GrantTerm,
    rulesFor: (grant: RelayGrant) => MailRules,
    onAccepted: (device: string | undefined) => void,
  ) {
    this.#term = term
    this.#rulesFor = rulesFor
    this.#onAccepted = onAccepted
  }

  get #rules(): MailRules {
    return this.#mail ?? this.#rulesFor(this.#term.grant)
  }

  /** The login and the device of the latest MAIL, for the log. */
  get logFields(): ReturnType<typeof loggedRules> {
    return loggedRules(this.#rules)
  }

  /** Line ends for the content behind the latest MAIL: by the device whose rules hold for it. */
  get lineEndings(): 'strict' | 'repair' {
    return this.#rules.device?.lineEndings ?? 'strict'
  }

  /** Advice for a message with other line ends. */
  get lineEndingAdvice(): string {
    const { device } = this.#rules
    return device === undefined
      ? 'the sending program must end each line with CR LF'
      : `auth-relay device set ${device.name} --line-endings repair`
  }

  sender(sender: Mailbox | undefined): Refusal | undefined {
    const from = sender === undefined ? '' : addressOf(sender)
    const last = this.#rulesFor(this.#term.grant)
    const grant = this.#term.ofSender(from, last.senderDomains)
    if ('rule' in grant) {
      this.#mail = rulesOfSender(last, from)
      return grant
    }
    const rules = rulesOfSender(this.#rulesFor(grant), from)
    this.#mail = rules
    return refuseSender(rules, from) ?? refuseCount(messageCounts(rules))
  }

  message(): Refusal | Reservation {
    const rules = this.#rules
    const reserved = reserve(messageCounts(rules))
    return 'rule' in reserved ? reserved : { ...reserved, accept: () => this.#onAccepted(rules.device?.name) }
  }

  recipient(recipient: Mailbox | undefined): Refusal | Reservation {
    const refusal = refuseRecipient(this.#rules, recipient === undefined ? '' : addressOf(recipient))
    return refusal ?? reserve(recipientCounts(this.#rules))
  }
}

/** The address in the form of the policy service: unquoted, as text. */
const addressOf = ({ local, domain }: Mailbox): string =>
  Buffer.from(domain === undefined ? local : `${local}@${domain}`, 'latin1').toString()
