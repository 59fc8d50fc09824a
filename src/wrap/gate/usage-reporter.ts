/** The reports of the gate to authd: usage events, counts of decisions, and messages of devices. */
import { connect, type Socket } from 'node:net'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import {
  type DeviceMessages,
  formatDeviceMessages,
  formatRelayTally,
  formatUsageEvent,
  MAX_RECENT,
  type RelayTally,
  type RelayVerdict,
  type UsageEvent,
} from '../../wire/usage-event.ts'

/** Usage events kept while authd is unreachable. The oldest are dropped first. */
const MAX_WAITING = 10_000
/** Time from an event to its sending, so that several events are sent together. */
const FLUSH_MS = 200
/** Time between two reports of counts. */
const TALLY_MS = 1_000
const RETRY_MS = 5_000
/** Devices whose messages of an hour wait for authd. The oldest are dropped first. */
const MAX_DEVICE_HOURS = 10_000

/**
 * Reports used grants and counts of decisions to authd, for the history. Reports may be lost: the
 * reporter never waits for authd, never throws, and never keeps the process running.
 */
export class UsageReporter {
  readonly #path: string
  readonly #waiting: string[] = []
  #socket: Socket | undefined
  #timer: NodeJS.Timeout | undefined
  readonly #tallies = new DecisionTallies()
  readonly #messages = new BoundedMap<string, DeviceMessages>(MAX_DEVICE_HOURS)
  #tallyTimer: NodeJS.Timeout | undefined
  #tallyIsDue = false

  readonly #retryMs: number

  /** `path`: authd's Unix socket for usage events. */
  constructor(path: string, retryMs = RETRY_MS) {
    this.#path = path
    this.#retryMs = retryMs
  }

  report(event: UsageEvent): void {
    if (this.#waiting.length >= MAX_WAITING) this.#waiting.shift()
    this.#waiting.push(`${formatUsageEvent(event)}\n`)
    this.#flushIn(FLUSH_MS)
  }

  /** Counts a decision. Counts are sent once a second. `at`: Unix seconds. */
  count(service: string, verdict: RelayVerdict, ip: IpAddress | undefined, at: number): void {
    this.#tallies.count(service, verdict, ip, at)
    this.#tallySoon()
  }

  /** Counts a message of a device. Counts are sent once a second. `at`: Unix seconds. */
  countMessage(device: string, at: number): void {
    const key = `${Math.floor(at / 3600)} ${device}`
    this.#messages.set(key, { at, device, count: (this.#messages.get(key)?.count ?? 0) + 1 })
    this.#tallySoon()
  }

  #tallySoon(): void {
    if (this.#tallyIsDue) return
    this.#tallyTimer ??= setTimeout(() => {
      this.#tallyTimer = undefined
      this.#tallyIsDue = true
      this.#flush()
    }, TALLY_MS).unref()
  }

  /** Sends the pending events if authd is connected. */
  close(): void {
    clearTimeout(this.#timer)
    clearTimeout(this.#tallyTimer)
    this.#tallyIsDue = true
    this.#flush()
    this.#socket?.end()
  }

  #flushIn(ms: number): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#flush()
    }, ms).unref()
  }

  #flush(): void {
    if (this.#waiting.length === 0 && !this.#hasTally) return
    const socket = this.#socket
    if (socket === undefined) this.#connect()
    else if (socket.writableNeedDrain) this.#flushIn(this.#retryMs)
    else if (!socket.connecting) socket.write(this.#take().join(''))
  }

  get #hasTally(): boolean {
    return this.#tallyIsDue && !(this.#tallies.isEmpty && this.#messages.size === 0)
  }

  #take(): readonly string[] {
    const events = this.#waiting.splice(0)
    if (!this.#tallyIsDue) return events
    this.#tallyIsDue = false
    const messages = [...this.#messages.values()]
    this.#messages.clear()
    const counts = [...this.#tallies.take().map(formatRelayTally), ...messages.map(formatDeviceMessages)]
    return [...events, ...counts.map(line => `${line}\n`)]
  }

  #connect(): void {
    const socket = connect({ path: this.#path }).unref()
    this.#socket = socket
    socket.once('connect', () => this.#flush())
    // authd is unreachable. Pending events are kept, up to MAX_WAITING.
    socket.on('error', () => {})
    socket.on('close', () => {
      this.#socket = undefined
      if (this.#waiting.length > 0 || this.#hasTally) this.#flushIn(this.#retryMs)
    })
    socket.resume()
  }
}

/**
 * Tallies kept while authd is unreachable: one hour of the six services. The oldest are dropped
 * first.
 */
const MAX_TALLIES = 360

type OpenTally = {
  at: number
  readonly service: string
  readonly counts: Record<RelayVerdict, number>
  readonly recent: IpAddress[]
}

/** Counts decisions by service and minute. Keeps at most MAX_RECENT refused addresses of each. */
export class DecisionTallies {
  readonly #open = new BoundedMap<string, OpenTally>(MAX_TALLIES)

  get isEmpty(): boolean {
    return this.#open.size === 0
  }

  /** `at`: Unix seconds. */
  count(service: string, verdict: RelayVerdict, ip: IpAddress | undefined, at: number): void {
    const tally = this.#tallyOf(service, at)
    tally.at = at
    tally.counts[verdict] += 1
    if (verdict !== 'refused' || ip === undefined || tally.recent.includes(ip)) return
    if (tally.recent.length === MAX_RECENT) tally.recent.shift()
    tally.recent.push(ip)
  }

  /** Removes and returns the counts since the last call, oldest minute first. */
  take(): readonly RelayTally[] {
    const tallies = [...this.#open.values()]
    this.#open.clear()
    return tallies
  }

  #tallyOf(service: string, at: number): OpenTally {
    const key = `${service} ${Math.floor(at / 60)}`
    const known = this.#open.get(key)
    if (known !== undefined) return known
    const tally: OpenTally = { at, service, counts: { relayed: 0, refused: 0, undecided: 0, never: 0 }, recent: [] }
    this.#open.set(key, tally)
    return tally
  }
}
