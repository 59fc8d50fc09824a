import { connect, type Socket } from 'node:net'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import {
  formatRelayTally,
  formatRelayUse,
  MAX_RECENT,
  type RelayTally,
  type RelayUse,
  type RelayVerdict,
} from '../../wire/usage-event.ts'

/** Uses kept while authd is away; the oldest go first. */
const MAX_WAITING = 10_000
const FLUSH_MS = 200
/** Between two reports of what was counted. */
const TALLY_MS = 1_000
const RETRY_MS = 5_000

/**
 * Tells authd who needed a grant and how often the doors decided what, for its history. Best
 * effort: never waits, never fails, never stops the process from ending.
 */
export class UseReporter {
  readonly #path: string
  readonly #waiting: string[] = []
  #socket: Socket | undefined
  #timer: NodeJS.Timeout | undefined
  readonly #tallies = new DecisionTallies()
  #tallyTimer: NodeJS.Timeout | undefined
  #tallyIsDue = false

  readonly #retryMs: number

  /** `path`: authd's Unix socket for uses. */
  constructor(path: string, retryMs = RETRY_MS) {
    this.#path = path
    this.#retryMs = retryMs
  }

  report(use: RelayUse): void {
    if (this.#waiting.length >= MAX_WAITING) this.#waiting.shift()
    this.#waiting.push(`${formatRelayUse(use)}\n`)
    this.#flushIn(FLUSH_MS)
  }

  /** Counts a decision; what was counted is reported once a second. `at`: Unix seconds. */
  count(door: string, verdict: RelayVerdict, ip: IpAddress | undefined, at: number): void {
    this.#tallies.count(door, verdict, ip, at)
    if (this.#tallyIsDue) return
    this.#tallyTimer ??= setTimeout(() => {
      this.#tallyTimer = undefined
      this.#tallyIsDue = true
      this.#flush()
    }, TALLY_MS).unref()
  }

  /** Sends what waits, if authd is there. */
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
    return this.#tallyIsDue && !this.#tallies.isEmpty
  }

  #take(): readonly string[] {
    const uses = this.#waiting.splice(0)
    if (!this.#tallyIsDue) return uses
    this.#tallyIsDue = false
    return [...uses, ...this.#tallies.take().map(tally => `${formatRelayTally(tally)}\n`)]
  }

  #connect(): void {
    const socket = connect({ path: this.#path }).unref()
    this.#socket = socket
    socket.once('connect', () => this.#flush())
    socket.on('error', () => {}) // authd is away; what waits is kept, up to a bound
    socket.on('close', () => {
      this.#socket = undefined
      if (this.#waiting.length > 0 || this.#hasTally) this.#flushIn(this.#retryMs)
    })
    socket.resume()
  }
}

/** An hour of every door, while authd is away; the oldest go first. */
const MAX_TALLIES = 300

type OpenTally = {
  at: number
  readonly door: string
  readonly counts: Record<RelayVerdict, number>
  readonly recent: IpAddress[]
}

/**
 * Counts decisions by door and minute until they are taken. However many ask, it stays small: of
 * the refused it keeps the last few addresses.
 */
export class DecisionTallies {
  readonly #open = new BoundedMap<string, OpenTally>(MAX_TALLIES)

  get isEmpty(): boolean {
    return this.#open.size === 0
  }

  /** `at`: Unix seconds. */
  count(door: string, verdict: RelayVerdict, ip: IpAddress | undefined, at: number): void {
    const tally = this.#tallyOf(door, at)
    tally.at = at
    tally.counts[verdict] += 1
    if (verdict !== 'refused' || ip === undefined || tally.recent.includes(ip)) return
    if (tally.recent.length === MAX_RECENT) tally.recent.shift()
    tally.recent.push(ip)
  }

  /** What was counted since the last time, oldest minute first. */
  take(): readonly RelayTally[] {
    const tallies = [...this.#open.values()]
    this.#open.clear()
    return tallies
  }

  #tallyOf(door: string, at: number): OpenTally {
    const key = `${door} ${Math.floor(at / 60)}`
    const known = this.#open.get(key)
    if (known !== undefined) return known
    const tally: OpenTally = { at, door, counts: { relayed: 0, refused: 0, undecided: 0, never: 0 }, recent: [] }
    this.#open.set(key, tally)
    return tally
  }
}
