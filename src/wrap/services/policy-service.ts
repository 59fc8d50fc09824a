import { LineServer, type LineServerLimits, type LineService } from '../../process/line-server.ts'
import type { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { loginKey } from '../../wire/login-key.ts'
import { clientOf, formatPolicyAnswer, PolicyReader, type PolicyRequest } from '../../wire/policy-request.ts'
import { type Decision, logAnswer } from '../decision.ts'
import type { PolicyRates } from './policy-rates.ts'
import { senderBelongsTo } from './sender-binding.ts'
import type { ServiceOptions } from './service-options.ts'

export type PolicyServiceOptions = ServiceOptions & {
  /** Must the envelope sender belong to the login that opened the address? */
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  readonly rates: PolicyRates
  /** Whose mail counts together in the rates per address. */
  readonly customers: CustomerNetworks
  /** Do questions of this account count as mail? Those of other accounts are answered, change no count and leave no trace in the history. */
  readonly counts: (uid: number | undefined) => boolean
}

/** Says nothing about the mail: the restrictions that follow in main.cf decide (Postfix access(5)). */
const NO_OPINION = 'DUNNO'
/** Milliseconds: Postfix closes a connection after 1000 s at the latest (smtpd_policy_service_max_ttl). */
const IDLE_MS = 1_200_000

/**
 * Postfix's policy service (SMTPD_POLICY_README), for `check_policy_service` before `reject_unauth_destination`: OK for a granted client, DUNNO for all else.
 * `options` is asked for each question: settings may change.
 */
export function policyService(options: () => PolicyServiceOptions): LineServer<PolicyRequest> {
  return new LineServer({
    name: 'policy',
    order: 'asked',
    // A fault of ours must not take Postfix's mail down: it goes on as for any stranger.
    failure: formatPolicyAnswer(NO_OPINION),
    limits: (): LineServerLimits => ({ ...options().limits, idleMs: IDLE_MS }),
    log: () => options().log,
    newService: ({ uid }) => new PolicyConnection(uid, options),
  })
}

class PolicyConnection implements LineService<PolicyRequest> {
  readonly #options: () => PolicyServiceOptions
  readonly #uid: number | undefined
  readonly #reader = new PolicyReader()
  /** Message that recipients were counted for last: Postfix keeps `instance` the same over one message. */
  #instance = ''
  /** Questions count in their order, however their decisions arrive. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(uid: number | undefined, options: () => PolicyServiceOptions) {
    this.#uid = uid
    this.#options = options
  }

  cut(chunk: Buffer): readonly PolicyRequest[] {
    return this.#reader.push(chunk.toString('latin1'))
  }

  answer(request: PolicyRequest): Promise<string> {
    const both = Promise.all([this.#options().decide(clientOf(request)), this.#last])
    const answer = both.then(([decision]) => formatPolicyAnswer(this.#actionFor(request, decision)))
    this.#last = answer.catch(() => {})
    return answer
  }

  #actionFor(request: PolicyRequest, decision: Decision): string {
    const { log } = this.#options()
    const ip = clientOf(request)
    const fields = {
      ip,
      door: 'policy',
      sender: request.get('sender'),
      recipient: request.get('recipient'),
      queue: request.get('queue_id') || undefined,
    }
    if (!decision.relay || ip === undefined) {
      logAnswer(log, decision, fields)
      this.#report(ip, decision)
      return NO_OPINION
    }
    const refusal = this.#refusal(request, ip, decision.login)
    if (refusal !== undefined) {
      log.warn('refuse', { ...fields, user: decision.login, reason: refusal.reason })
      this.#report(ip, { relay: false, reason: refusal.reason })
      return refusal.action
    }
    logAnswer(log, decision, fields)
    this.#report(ip, decision)
    return 'OK'
  }

  get #counts(): boolean {
    return this.#options().counts(this.#uid)
  }

  #report(ip: IpAddress | undefined, decision: Decision): void {
    if (this.#counts) this.#options().onDecision(ip, decision)
  }

  #refusal(
    request: PolicyRequest,
    ip: IpAddress,
    login: string | undefined,
  ): { readonly reason: string; readonly action: string } | undefined {
    const { senderBinding, senderDomains, log } = this.#options()
    const sender = request.get('sender') ?? ''
    if (senderBinding !== 'off' && login !== undefined && !senderBelongsTo(login, sender, senderDomains)) {
      if (senderBinding === 'refuse')
        return { reason: 'sender', action: '550 5.7.1 sender address does not belong to the mailbox opened from here' }
      log.warn('foreign_sender', { ip, user: login, sender })
    }
    return this.#overRate(request, ip, login)
  }

  /** Counts a recipient at each RCPT and a message at its first. */
  #overRate(
    request: PolicyRequest,
    ip: IpAddress,
    login: string | undefined,
  ): { readonly reason: string; readonly action: string } | undefined {
    if ((request.get('protocol_state') ?? 'RCPT') !== 'RCPT') return undefined
    const instance = request.get('instance') ?? ''
    const isNewMessage = instance === '' || instance !== this.#instance
    const { rates, customers } = this.#options()
    const { messagesPerLogin, messagesPerAddress, recipientsPerLogin, recipientsPerAddress } = rates
    const customer = customers.keyOf(ip)
    const user = login === undefined ? undefined : loginKey(login)
    const counted = [
      ...(isNewMessage ? [{ rate: messagesPerAddress, key: customer, reason: 'messages_per_address' }] : []),
      { rate: recipientsPerAddress, key: customer, reason: 'recipients_per_address' },
      ...(isNewMessage && user !== undefined
        ? [{ rate: messagesPerLogin, key: user, reason: 'messages_per_login' }]
        : []),
      ...(user === undefined ? [] : [{ rate: recipientsPerLogin, key: user, reason: 'recipients_per_login' }]),
    ]
    const over = counted.find(({ rate, key }) => !rate.allows(key))
    if (over !== undefined)
      return { reason: over.reason, action: '450 4.7.1 too much mail within an hour, try again later' }
    if (!this.#counts) return undefined
    for (const { rate, key } of counted) rate.add(key)
    this.#instance = instance
    return undefined
  }
}
