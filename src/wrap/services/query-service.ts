import type { Log } from '../../base/log.ts'
import { refuseRecipient, refuseSender } from '../../grants/devices/mail-rules.ts'
import { LineServer, type LineServerLimits } from '../../process/line-server.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { LineSplitter } from '../../wire/lines.ts'
import {
  formatRelayAnswer,
  MAX_RELAY_QUESTION_LINE,
  parseRelayQuery,
  type RelayAnswer,
} from '../../wire/relay-services.ts'
import { type Decision, logAnswer } from '../decision.ts'
import { type MailRules, mailRules, type SiteMailRules } from '../mail-rules.ts'

/** Milliseconds. Clients of this service send their query immediately. */
const IDLE_MS = 60_000

/**
 * Makes the query service: lines `relay v=1 ip=ADDRESS`, answered in order, for exec mode and for
 * Exim's `readsocket` (docs/WIRE.md). If a query names sender and recipient, they are checked, but
 * not counted. `options` is called for each query.
 */
export function queryService(options: () => QueryServiceOptions): LineServer<string> {
  const answerTo = async (line: string): Promise<RelayAnswer> => {
    const { decide, onDecision, log, ...site } = options()
    const question = parseRelayQuery(line)
    if (question === undefined) return { verdict: 'unknown' }
    const { ip, sender, recipient } = question
    const granted = await decide(ip)
    const refusal = granted.relay
      ? refuseEnvelope(
          mailRules(site, ip, granted, () => {}),
          sender,
          recipient,
        )
      : undefined
    const decision: Decision = refusal === undefined ? granted : { relay: false, reason: refusal.rule }
    const fields = { ip, service: 'query', sender, recipient }
    if (refusal === undefined) logAnswer(log, decision, fields)
    else log.warn('mail_refused', { ...fields, user: granted.relay ? granted.login : undefined, reason: refusal.rule })
    onDecision(ip, decision)
    if (!decision.relay) return { verdict: decision.error === undefined ? 'no' : 'unknown' }
    return { verdict: 'yes', until: decision.until ?? END_OF_TIME, login: decision.login }
  }
  return new LineServer({
    name: 'question',
    order: 'asked',
    failure: `${formatRelayAnswer({ verdict: 'unknown' })}\n`,
    limits: (): LineServerLimits => ({ ...options().limits, idleMs: IDLE_MS }),
    log: () => options().log,
    newService: () => {
      const splitter = new LineSplitter(MAX_RELAY_QUESTION_LINE)
      return {
        cut: chunk => {
          const { lines, overlong } = splitter.push(chunk)
          if (overlong > 0 || splitter.isOverlong)
            throw new Error(`a line is longer than ${MAX_RELAY_QUESTION_LINE} octets`)
          return lines
        },
        answer: async line => `${formatRelayAnswer(await answerTo(line))}\n`,
      }
    },
  })
}

/** Checks the sender and the recipient of a query. */
const refuseEnvelope = (rules: MailRules, sender: string | undefined, recipient: string | undefined) =>
  (sender === undefined ? undefined : refuseSender(rules, sender)) ??
  (recipient === undefined ? undefined : refuseRecipient(rules, recipient))

/** Rules for the mail of a granted client, and the options of a service. */
export type QueryServiceOptions = ServiceOptions & SiteMailRules

/** Unix seconds for the end of an allowance without an end, because the answer needs a number. */
const END_OF_TIME = 253_402_300_799

/** Options of every service. */
export type ServiceOptions = {
  readonly decide: (ip: IpAddress | undefined) => Promise<Decision>
  /**
   * Called once for each query, with the decision that the client gets. `ip` undefined: the query
   * named no address.
   */
  readonly onDecision: (ip: IpAddress | undefined, decision: Decision) => void
  readonly limits: Pick<LineServerLimits, 'maxConnections' | 'maxOpen'>
  readonly log: Log
}
