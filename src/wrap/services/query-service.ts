/** The query service, and the options that all services have. */
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Log } from '../../base/log.ts'
import { checkEnvelope, decisionOfSender } from '../../grants/devices/mail-rules.ts'
import { LineServer, type LineServerLimits } from '../../process/line-server.ts'
import type { Refusal } from '../../smtp/transaction.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { LineSplitter } from '../../wire/lines.ts'
import {
  type ClientFaults,
  formatClientFaults,
  formatDeviceCounts,
  parseCountsQuery,
  parseFaultsQuery,
} from '../../wire/services/gate-report.ts'
import {
  formatRelayAnswer,
  MAX_RELAY_QUERY_LINE,
  parseRelayQuery,
  type RelayAnswer,
  type RelayQuery,
} from '../../wire/services/relay-query.ts'
import { type Decision, logAnswer, MAIL_REFUSED } from '../decision.ts'
import {
  logForeignSender,
  loggedRules,
  type MailRules,
  mailRules,
  messageCounts,
  recipientCounts,
  refuseCount,
  type SiteMailRules,
} from '../mail-rules.ts'

/** Clients of this service send their query immediately, so this time is short. */
const IDLE_MS = 60_000

/** Instances that are kept. Further recipients of a dropped instance count as a new message. */
const MAX_INSTANCES = 10_000

/**
 * Makes the query service: lines `relay v=1 ip=ADDRESS`, answered in order, for exec mode and for
 * Exim's `readsocket` (docs/WIRE.md). If a query names sender and recipient, they are checked. If a
 * query names an instance, it counts against the limits. `counts v=1 device=NAME` queries the
 * counts, and `faults v=1 ip=ADDRESS` the faults of a client. `options` is called for each query.
 */
export function queryService(options: () => QueryServiceOptions & FaultsSource): LineServer<string> {
  const instances = new BoundedMap<string, true>(MAX_INSTANCES)

  /**
   * Counts a recipient, and with the first recipient of an instance the message. Undefined: no
   * limit is reached.
   */
  const count = (
    rules: MailRules,
    { ip, instance }: RelayQuery,
    { isMail, onMessage }: { readonly isMail: boolean; readonly onMessage: (device: string) => void },
  ): Refusal | undefined => {
    if (instance === undefined) return undefined
    const key = `${ip} ${instance}`
    const isNewMessage = !instances.has(key)
    const counted = [...(isNewMessage ? messageCounts(rules) : []), ...recipientCounts(rules)]
    const over = refuseCount(counted)
    if (over !== undefined || !isMail) return over
    for (const { count, key: name, limit } of counted) count.add(name, limit)
    instances.renew(key, true)
    if (isNewMessage && rules.device !== undefined) onMessage(rules.device.name)
    return undefined
  }

  const answerTo = async (query: RelayQuery, uid: number | undefined): Promise<RelayAnswer> => {
    const { decide, onDecision, log, counts, onMessage, ...site } = options()
    const { ip, sender, recipient } = query
    const granted = decisionOfSender(await decide(ip), sender ?? '', site.senderDomains)
    const checked = granted.relay
      ? checkEnvelope(mailRules(site, ip, granted, logForeignSender(log, { ip, service: 'query' })), {
          sender,
          recipient,
        })
      : undefined
    const rules = checked?.rules
    const refusal = checked?.sender ?? checked?.recipient
    const over =
      rules === undefined || refusal !== undefined ? undefined : count(rules, query, { isMail: counts(uid), onMessage })
    const rule = (refusal ?? over)?.rule
    const decision = rule === undefined ? granted : MAIL_REFUSED
    const fields = { ip, service: 'query', sender, recipient }
    if (rule === undefined) logAnswer(log, decision, fields)
    else log.warn('mail_refused', { ...fields, ...(rules === undefined ? {} : loggedRules(rules)), reason: rule })
    onDecision(ip, decision)
    if (over !== undefined) return { verdict: 'later', reply: over.reply }
    if (refusal !== undefined) return { verdict: 'no', reply: refusal.reply }
    if (!decision.relay) return { verdict: decision.error === undefined ? 'no' : 'unknown' }
    return { verdict: 'yes', until: decision.until ?? END_OF_TIME, login: decision.login }
  }

  const answer = async (line: string, uid: number | undefined): Promise<string> => {
    const device = parseCountsQuery(line)
    if (device !== undefined) return formatDeviceCounts(options().mailCounts.countsOf(device))
    const client = parseFaultsQuery(line)
    if (client !== undefined) return formatClientFaults(options().faultsOf(client))
    const query = parseRelayQuery(line)
    return formatRelayAnswer(query === undefined ? { verdict: 'unknown' } : await answerTo(query, uid))
  }

  return new LineServer({
    name: 'query',
    order: 'arrival',
    failure: `${formatRelayAnswer({ verdict: 'unknown' })}\n`,
    limits: (): LineServerLimits => ({ ...options().limits, idleMs: IDLE_MS }),
    log: () => options().log,
    newService: ({ uid }) => {
      const splitter = new LineSplitter(MAX_RELAY_QUERY_LINE)
      return {
        cut: chunk => {
          const { lines, overlong } = splitter.push(chunk)
          if (overlong > 0 || splitter.isOverlong)
            throw new Error(`a line is longer than ${MAX_RELAY_QUERY_LINE} octets`)
          return lines
        },
        answer: async line => `${await answer(line, uid)}\n`,
      }
    },
  })
}

/** Where the faults of clients of the front are found. */
export type FaultsSource = { readonly faultsOf: (ip: IpAddress) => ClientFaults }

/** Rules for the mail of a granted client, and the options of a service. */
export type QueryServiceOptions = QueryListenerOptions &
  SiteMailRules & {
    /**
     * Returns true if queries of this account count as mail. Queries of other accounts get an
     * answer, but change no count.
     */
    readonly counts: (uid: number | undefined) => boolean
    /** Called for each message of a device that counts. */
    readonly onMessage: (device: string) => void
  }

/** Unix seconds for the end of an allowance without an end, because the answer needs a number. */
const END_OF_TIME = 253_402_300_799

/** Options of every service. */
export type QueryListenerOptions = {
  readonly decide: (ip: IpAddress | undefined) => Promise<Decision>
  /**
   * Called once for each query, with the decision that the client gets. `ip` undefined: the query
   * named no address.
   */
  readonly onDecision: (ip: IpAddress | undefined, decision: Decision) => void
  readonly limits: Pick<LineServerLimits, 'maxConnections' | 'maxOpen'>
  readonly log: Log
}
