/** The socket of the gate's reports, and the rates that bound what a compromised gate can store. */
import { BoundedMap } from '../base/bounded-map.ts'
import type { Clock } from '../base/clock.ts'
import { asError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { GrantWriter, UsageRecord } from '../grants/grant-store.ts'
import { LineServer } from '../process/line-server.ts'
import { openListener } from '../process/listener.ts'
import type { Ids } from '../process/privileges.ts'
import { LineSplitter } from '../wire/lines.ts'
import {
  type DeviceMessages,
  MAX_RELAY_TALLY_LINE,
  parseDeviceMessages,
  parseRelayTally,
  parseUsageEvent,
  RELAY_SERVICES,
  RELAY_VERDICTS,
  type RelayTally,
} from '../wire/usage-event.ts'
import type { Counters } from './counters.ts'

export type UsageSocketOptions = {
  readonly path: string
  readonly uids: ReadonlySet<number>
  /** Account that owns the socket; by default the account of authd. */
  readonly owner?: Ids | undefined
  readonly store: Pick<GrantWriter, 'recordUsageEvents' | 'recordTallies' | 'recordDeviceMessages'>
  readonly counters: Counters
  readonly clock: Clock
  /** Milliseconds of a monotonic clock. */
  readonly monotonic: () => number
  readonly log: Log
}

/** `maxOpen`: nothing is answered. The gate keeps its connection open. */
const LIMITS = { maxConnections: 64, maxOpen: 1, idleMs: 0 }
/**
 * Number of reports that wait for the store. Above it the oldest are dropped, because they are
 * history and decide nothing.
 */
const MAX_WAITING = 10_000
/** The same for tallies: one hour of one service. */
const MAX_TALLIES = 3_600
/** The same for messages of devices. */
const MAX_DEVICE_MESSAGES = 10_000
/**
 * Burst of lines, and lines a second in the long run: of one connection, and of all connections.
 * The burst holds the reports that a gate keeps while authd does not run.
 */
const BURST = 10_000
const PER_SECOND = 50
const BURST_OF_ALL = 20_000
const PER_SECOND_OF_ALL = 100
/**
 * Usage events of this minute and of the previous one that are remembered, so that each address has
 * one row a minute.
 */
const MAX_SEEN = 100_000
/**
 * A gate reports within seconds, and keeps at most one hour while authd does not run. An older
 * tally would need a separate row.
 */
const MAX_TALLY_AGE_S = 3_700
const WRITE_EVERY_MS = 1000
const DEADLINE_MS = 10_000
/** Time between two warnings about dropped lines. */
const WARN_EVERY_MS = 60_000

/**
 * The Unix socket where the gate reports used grants, tallies of its decisions and messages of
 * devices, because it cannot write the database. Nothing is answered.
 *
 * A line becomes at most one row. An attacker may have the account of the gate, so rows have a
 * rate: one usage event for an address, a service and a minute; tallies for known services and the
 * last hour, added up in one row for a service and a minute; messages of known devices and the last
 * hour, added up in one row for a device and an hour; and a number of lines a second.
 */
export class UsageSocket {
  readonly #options: UsageSocketOptions
  readonly #server: LineServer<string>
  readonly #timer: NodeJS.Timeout
  readonly #rateOfAll: TokenBucket
  readonly #seen = new BoundedMap<string, number>(MAX_SEEN)
  #waiting: UsageRecord[] = []
  #tallies: RelayTally[] = []
  #messages: DeviceMessages[] = []
  #writing = false
  #dropped = 0
  #warnedAt = Number.NEGATIVE_INFINITY

  constructor(options: UsageSocketOptions) {
    this.#options = options
    const { counters, log, uids, monotonic } = options
    this.#rateOfAll = new TokenBucket(BURST_OF_ALL, PER_SECOND_OF_ALL, monotonic)
    this.#server = new LineServer({
      name: 'usage',
      order: 'arrival',
      failure: undefined,
      limits: () => LIMITS,
      uids,
      onForeignPeer: () => {
        counters.foreignPeers += 1
        log.warn('peer_refused', { reason: 'account may not report usage events: add it to authd.usage_users' })
      },
      log: () => log,
      newService: () => {
        const splitter = new LineSplitter(MAX_RELAY_TALLY_LINE)
        const rate = new TokenBucket(BURST, PER_SECOND, monotonic)
        return {
          cut: chunk => splitter.push(chunk).lines,
          answer: line => {
            if (rate.take() && this.#rateOfAll.take()) this.#receive(line)
            else this.#drop()
            return undefined
          },
        }
      },
    })
    this.#timer = setInterval(() => void this.write(), WRITE_EVERY_MS)
  }

  async listen(): Promise<void> {
    const { path, uids, owner } = this.#options
    await openListener(this.#server.server, { kind: 'unix', path }, 'authd.usage_socket', {
      mode: uids.size === 0 ? 0o600 : 0o666,
      ...owner,
    })
  }

  close(): void {
    clearInterval(this.#timer)
    this.#server.close()
  }

  /** Stores the reports. While the store is unavailable, history is lost and nothing else. */
  async write(): Promise<void> {
    if (this.#writing || this.#waiting.length + this.#tallies.length + this.#messages.length === 0) return
    this.#writing = true
    try {
      await this.#writeUsageEvents()
      await this.#writeTallies()
      await this.#writeMessages()
    } catch (error) {
      this.#options.log.debug('usage_delayed', { reason: asError(error) })
    } finally {
      this.#writing = false
    }
  }

  async #writeUsageEvents(): Promise<void> {
    const events = this.#waiting.splice(0)
    try {
      await this.#options.store.recordUsageEvents(events, { signal: AbortSignal.timeout(DEADLINE_MS) })
    } catch (error) {
      this.#waiting = [...events, ...this.#waiting].slice(-MAX_WAITING)
      throw error
    }
  }

  async #writeTallies(): Promise<void> {
    const tallies = this.#tallies.splice(0)
    try {
      await this.#options.store.recordTallies(tallies, { signal: AbortSignal.timeout(DEADLINE_MS) })
    } catch (error) {
      // Refusals are of use only while they are recent.
      const kept = tallies.map(tally => ({ ...tally, recent: [] }))
      this.#tallies = [...kept, ...this.#tallies].slice(-MAX_TALLIES)
      throw error
    }
  }

  async #writeMessages(): Promise<void> {
    const messages = this.#messages.splice(0)
    try {
      await this.#options.store.recordDeviceMessages(messages, { signal: AbortSignal.timeout(DEADLINE_MS) })
    } catch (error) {
      this.#messages = [...messages, ...this.#messages].slice(-MAX_DEVICE_MESSAGES)
      throw error
    }
  }

  #receive(line: string): void {
    const { counters, clock } = this.#options
    const messages = parseDeviceMessages(line)
    if (messages !== undefined) {
      if (clock() / 1000 - messages.at > MAX_TALLY_AGE_S) {
        counters.badAnnouncements += 1
        return
      }
      if (this.#messages.length >= MAX_DEVICE_MESSAGES) this.#messages.shift()
      this.#messages.push(messages)
      return
    }
    const tally = parseRelayTally(line)
    if (tally !== undefined) {
      const age = clock() / 1000 - tally.at
      if (!RELAY_SERVICES.has(tally.service) || age > MAX_TALLY_AGE_S) {
        counters.badAnnouncements += 1
        return
      }
      for (const verdict of RELAY_VERDICTS) counters.decisions[verdict] += tally.counts[verdict]
      if (this.#tallies.length >= MAX_TALLIES) this.#tallies.shift()
      this.#tallies.push(tally)
      return
    }
    const event = parseUsageEvent(line)
    if (event === undefined || !RELAY_SERVICES.has(event.service)) {
      counters.badAnnouncements += 1
      return
    }
    counters.usageEvents += 1
    if (!this.#isFirstOfMinute(`${event.service} ${event.ip}`, Math.floor(event.at / 60))) return
    if (this.#waiting.length >= MAX_WAITING) this.#waiting.shift()
    this.#waiting.push({ ip: event.ip, service: event.service, at: new Date(event.at * 1000) })
  }

  #isFirstOfMinute(key: string, minute: number): boolean {
    if (this.#seen.get(key) === minute) return false
    this.#seen.renew(key, minute)
    return true
  }

  #drop(): void {
    this.#dropped += 1
    const now = this.#options.monotonic()
    if (now - this.#warnedAt < WARN_EVERY_MS) return
    this.#warnedAt = now
    this.#options.log.warn('usage_dropped', { count: this.#dropped, reason: 'more than a gate has to report' })
    this.#dropped = 0
  }
}

/**
 * A token bucket: passes `burst` items at once and `perSecond` in the long run. `clock`: monotonic
 * milliseconds.
 */
class TokenBucket {
  readonly #burst: number
  readonly #perSecond: number
  readonly #clock: () => number
  #tokens: number
  #at: number

  constructor(burst: number, perSecond: number, clock: () => number) {
    this.#burst = burst
    this.#perSecond = perSecond
    this.#clock = clock
    this.#tokens = burst
    this.#at = clock()
  }

  /** True if one more item may pass; the item is then counted. */
  take(): boolean {
    const now = this.#clock()
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
