/** The policy service: which queries get an answer other than DUNNO, and which of them count. */
import { checkEnvelope, decisionOfSender, type RelayGrant } from '../../grants/devices/mail-rules.ts'
import { LineServer, type LineServerLimits, type LineService } from '../../process/line-server.ts'
import type { Refusal } from '../../smtp/transaction.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { clientOf, formatPolicyAnswer, PolicyReader, type PolicyRequest } from '../../wire/services/policy.ts'
import { type Decision, logAnswer, MAIL_REFUSED } from '../decision.ts'
import {
  logForeignSender,
  loggedRules,
  type MailRules,
  mailRules,
  messageCounts,
  recipientCounts,
  refuseCount,
} from '../mail-rules.ts'
import type { QueryServiceOptions } from './query-service.ts'

/** Answer without a decision: the later restrictions of main.cf decide (Postfix access(5)). */
const NO_OPINION = 'DUNNO'
/**
 * Postfix closes a connection after at most 1,000 s (smtpd_policy_service_max_ttl). The service
 * waits longer, so that Postfix closes first.
 */
const IDLE_MS = 1_200_000

/**
 * Makes Postfix's policy service (SMTPD_POLICY_README), for `check_policy_service` before
 * `reject_unauth_destination`. The answer for a granted client is OK, or the reply of the rule that
 * refuses its mail. The answer for all others is DUNNO. `options` is called for each query, because
 * settings may change.
 */
export function policyService(options: () => QueryServiceOptions): LineServer<PolicyRequest> {
  return new LineServer({
    name: 'policy',
    order: 'arrival',
    // After an internal error Postfix must continue as for a client without a grant.
    failure: formatPolicyAnswer(NO_OPINION),
    limits: (): LineServerLimits => ({ ...options().limits, idleMs: IDLE_MS }),
    log: () => options().log,
    newService: ({ uid }) => new PolicyConnection(uid, options),
  })
}

class PolicyConnection implements LineService<PolicyRequest> {
  readonly #options: () => QueryServiceOptions
  readonly #uid: number | undefined
  readonly #reader = new PolicyReader()
  /** `instance` of the message that was counted last. It is the same during one message. */
  #instance = ''
  /** The last answer. Queries are counted in their order, even if decisions come in another. */
  #last: Promise<unknown> = Promise.resolve()

  constructor(uid: number | undefined, options: () => QueryServiceOptions) {
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

  #actionFor(request: PolicyRequest, ofAddress: Decision): string {
    const { log, senderDomains } = this.#options()
    const decision = decisionOfSender(ofAddress, request.get('sender') ?? '', senderDomains)
    const ip = clientOf(request)
    const fields = {
      ip,
      service: 'policy',
      sender: request.get('sender'),
      recipient: request.get('recipient'),
      queue_id: request.get('queue_id') || undefined,
    }
    if (!decision.relay || ip === undefined) {
      logAnswer(log, decision, fields)
      this.#report(ip, decision)
      return NO_OPINION
    }
    const refusal = this.#refusal(request, ip, decision)
    if (refusal !== undefined) {
      log.warn('mail_refused', { ...fields, ...refusal.client, reason: refusal.reason })
      this.#report(ip, MAIL_REFUSED)
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
    grant: RelayGrant,
  ):
    | { readonly reason: Refusal['rule']; readonly action: string; readonly client: ReturnType<typeof loggedRules> }
    | undefined {
    const options = this.#options()
    const { rules, sender, recipient } = checkEnvelope(
      mailRules(options, ip, grant, logForeignSender(options.log, { ip, service: 'policy' })),
      { sender: request.get('sender'), recipient: request.get('recipient') ?? '' },
    )
    const refusal = sender ?? recipient ?? this.#overRate(request, rules)
    return refusal === undefined
      ? undefined
      : { reason: refusal.rule, action: refusal.reply, client: loggedRules(rules) }
  }

  /** Counts a recipient at each RCPT, and a message at its first RCPT. */
  #overRate(request: PolicyRequest, rules: MailRules): Refusal | undefined {
    if ((request.get('protocol_state') ?? 'RCPT') !== 'RCPT') return undefined
    const instance = request.get('instance') ?? ''
    const isNewMessage = instance === '' || instance !== this.#instance
    const counted = [...(isNewMessage ? messageCounts(rules) : []), ...recipientCounts(rules)]
    const over = refuseCount(counted)
    if (over !== undefined) return over
    if (!this.#counts) return undefined
    for (const { count, key, limit } of counted) count.add(key, limit)
    if (isNewMessage && rules.device !== undefined) this.#options().onMessage(rules.device.name)
    this.#instance = instance
    return undefined
  }
}
