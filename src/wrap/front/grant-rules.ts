import type { Mailbox } from '../../smtp/address.ts'
import type { FrontRules, Refusal, Reservation } from '../../smtp/front-rules.ts'
import type { HourlyRate, PolicyRates } from '../services/policy-rates.ts'
import { senderBelongsTo } from '../services/sender-binding.ts'

export type GrantRulesOptions = {
  readonly login: string | undefined
  /** Whose mail counts together in the rates per address. */
  readonly customer: string
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  readonly rates: PolicyRates
  /** Whether the grant still holds now. */
  readonly isGranted: () => boolean
  readonly onForeignSender: (sender: string) => void
}

const EXPIRED: Refusal = {
  rule: 'expired',
  reply: '450 4.7.1 open the mailbox by POP3 again, then send',
}
const FOREIGN: Refusal = {
  rule: 'sender',
  reply: '550 5.7.1 sender address does not belong to the mailbox opened from here',
}
const TOO_MUCH = '450 4.7.1 too much mail within an hour, try again later'

/** The rules of the policy service, for a session of a granted client behind the front. */
export class GrantRules implements FrontRules {
  readonly #options: GrantRulesOptions

  constructor(options: GrantRulesOptions) {
    this.#options = options
  }

  sender(sender: Mailbox | undefined): Refusal | undefined {
    const { login, senderBinding, senderDomains, isGranted, onForeignSender } = this.#options
    if (!isGranted()) return EXPIRED
    const address = sender === undefined ? '' : addressOf(sender)
    if (senderBinding !== 'off' && login !== undefined && !senderBelongsTo(login, address, senderDomains)) {
      if (senderBinding === 'refuse') return FOREIGN
      onForeignSender(address)
    }
    return refusalOf(this.#messages)
  }

  message(): Refusal | Reservation {
    return reserve(this.#messages)
  }

  recipient(): Refusal | Reservation {
    return reserve(this.#recipients)
  }

  get #messages(): readonly Counted[] {
    const { login, customer, rates } = this.#options
    return [
      { rate: rates.messagesPerAddress, key: customer, rule: 'messages_per_address' },
      ...(login === undefined ? [] : [{ rate: rates.messagesPerLogin, key: login, rule: 'messages_per_login' }]),
    ]
  }

  get #recipients(): readonly Counted[] {
    const { login, customer, rates } = this.#options
    return [
      { rate: rates.recipientsPerAddress, key: customer, rule: 'recipients_per_address' },
      ...(login === undefined ? [] : [{ rate: rates.recipientsPerLogin, key: login, rule: 'recipients_per_login' }]),
    ]
  }
}

type Counted = { readonly rate: HourlyRate; readonly key: string; readonly rule: string }

function refusalOf(counted: readonly Counted[]): Refusal | undefined {
  const over = counted.find(({ rate, key }) => !rate.allows(key))
  return over === undefined ? undefined : { rule: over.rule, reply: TOO_MUCH }
}

function reserve(counted: readonly Counted[]): Refusal | Reservation {
  const refusal = refusalOf(counted)
  if (refusal !== undefined) return refusal
  for (const { rate, key } of counted) rate.add(key)
  return {
    giveBack: () => {
      for (const { rate, key } of counted) rate.takeBack(key)
    },
  }
}

/** As the policy service has it: unquoted, in UTF-8. */
const addressOf = ({ local, domain }: Mailbox): string =>
  Buffer.from(domain === undefined ? local : `${local}@${domain.replace(/\.$/, '')}`, 'latin1').toString()
