/**
 * The data of the status page, and how often the database is queried for it: the load does not grow
 * with the number of viewers.
 */

import type { Clock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import type { DatabaseState } from '../../database/database.ts'
import type {
  EventCounts,
  LiveGrant,
  OpenAlarm,
  ServiceCounts,
  StatusDevice,
  StatusEvent,
  StatusFeed,
  Totals,
} from '../../grants/status-feed.ts'
import type { ShownCertificate } from '../certificates.ts'

/** The content of the page at one time. */
export type Snapshot = {
  /** By the clock of this host. */
  readonly taken: Date
  readonly database:
    | { readonly state: 'up'; readonly host: string; readonly milliseconds: number; readonly driftSeconds: number }
    | { readonly state: 'down'; readonly reason: string }
  /** The last answer of the database; undefined before the first one. */
  readonly facts: Facts | undefined
  readonly certificates: readonly ShownCertificate[]
}

export type Facts = {
  readonly totals: Totals
  readonly grants: readonly LiveGrant[]
  readonly events: readonly StatusEvent[]
  readonly services: readonly ServiceCounts[]
  readonly alarms: readonly OpenAlarm[]
  readonly devices: readonly StatusDevice[]
  readonly steps: readonly EventCounts[]
  readonly lastHour: Omit<EventCounts, 'start'>
}

export type StatusSourceOptions = {
  readonly feed: StatusFeed
  readonly databaseState: () => DatabaseState
  readonly probeCertificates: () => Promise<readonly ShownCertificate[]>
  readonly clock: Clock
}

export const MAX_GRANTS = 50
export const MAX_EVENTS = 40
const MAX_ALARMS = 10
const MAX_DEVICES = 50
const HOUR_S = 3600
/**
 * Minimum age in milliseconds of an answer before the next query. With any number of viewers the
 * database gets one query.
 */
const FRESH_FOR_MS = 2000
/**
 * The interval is this factor times the duration of the query. With millions of grants the page
 * uses at most a tenth of one connection.
 */
const REST_FACTOR = 10
/** Milliseconds between two readings of values that change rarely. */
const CERTIFICATES_EVERY_MS = 300_000
const HISTORY_EVERY_MS = 3_600_000

/** Collects the content of the page, at most as often as the page may change. */
export class StatusSource {
  readonly #options: StatusSourceOptions
  readonly #history: EventHistory
  #facts: Facts | undefined
  #certificates: readonly ShownCertificate[] = []
  #latest: Promise<Snapshot> | undefined
  #isAsking = false
  #askedAt = Number.NEGATIVE_INFINITY
  #askAgainAt = Number.NEGATIVE_INFINITY
  #certificatesAt = Number.NEGATIVE_INFINITY
  #historyAt = Number.NEGATIVE_INFINITY

  constructor(options: StatusSourceOptions) {
    this.#options = options
    this.#history = new EventHistory(options.feed)
  }

  /** Never rejects. The snapshot names parts that are unavailable. */
  snapshot(): Promise<Snapshot> {
    const now = this.#options.clock()
    if (this.#latest === undefined || (!this.#isAsking && this.#isOutdated(now))) {
      this.#isAsking = true
      this.#askedAt = now
      this.#latest = this.#take(now).finally(() => {
        const took = this.#options.clock() - now
        this.#askAgainAt = now + Math.max(FRESH_FOR_MS, took * REST_FACTOR)
        this.#isAsking = false
      })
    }
    return this.#latest
  }

  /** A clock that was set back also makes an answer outdated. */
  #isOutdated(now: number): boolean {
    return now >= this.#askAgainAt || now < this.#askedAt
  }

  async #take(at: number): Promise<Snapshot> {
    const [database] = await Promise.all([this.#askDatabase(), this.#askCertificates(at)])
    return { taken: new Date(at), database, facts: this.#facts, certificates: this.#certificates }
  }

  async #askDatabase(): Promise<Snapshot['database']> {
    const { feed, clock, databaseState } = this.#options
    try {
      const begin = clock()
      const totals = await feed.totals()
      const end = clock()
      // The clock of the database is authoritative. The clock of this host was between `begin` and
      // `end` at that time.
      const driftSeconds = (totals.now.getTime() - (begin + end) / 2) / 1000
      await this.#readHistory(totals.now)
      const [grants, events, services, alarms, devices, lastHour] = await Promise.all([
        feed.liveGrants(MAX_GRANTS),
        feed.lastEvents(HOUR_S, MAX_EVENTS),
        feed.services(HOUR_S),
        feed.alarms(MAX_ALARMS),
        feed.devices(MAX_DEVICES),
        feed.countEvents(new Date(totals.now.getTime() - HOUR_S * 1000), new Date(totals.now.getTime() + 1000), HOUR_S),
      ])
      const steps = this.#history.steps(totals.now)
      this.#facts = { totals, grants, events, services, alarms, devices, steps, lastHour: sum(lastHour) }
      const state = databaseState()
      return { state: 'up', host: state.state === 'up' ? state.host : '', milliseconds: end - begin, driftSeconds }
    } catch (error) {
      return { state: 'down', reason: messageOf(error) }
    }
  }

  async #readHistory(now: Date): Promise<void> {
    if (now.getTime() - this.#historyAt < HISTORY_EVERY_MS) return this.#history.readLast(now)
    await this.#history.readAll(now)
    this.#historyAt = now.getTime()
  }

  async #askCertificates(at: number): Promise<void> {
    if (at >= this.#certificatesAt && at - this.#certificatesAt < CERTIFICATES_EVERY_MS) return
    this.#certificatesAt = at
    this.#certificates = await this.#options.probeCertificates()
  }
}

const sum = (counts: readonly EventCounts[]): Omit<EventCounts, 'start'> => ({
  granted: counts.reduce((total, { granted }) => total + granted, 0),
  refused: counts.reduce((total, { refused }) => total + refused, 0),
  relayed: counts.reduce((total, { relayed }) => total + relayed, 0),
  closed: counts.reduce((total, { closed }) => total + closed, 0),
})

/** Seconds of one step of the chart, and how many it has: twelve hours. */
export const STEP_S = 600
export const STEPS = 72

const STEP_MS = STEP_S * 1000
/**
 * Milliseconds of history that one query covers at the start, so that each query is short on a busy
 * site.
 */
const PIECE_MS = 6 * STEP_MS
/**
 * Milliseconds within which a login may be stored after its own time, e.g. because the database was
 * unavailable.
 */
const SETTLE_MS = 2 * STEP_MS

const floor = (time: number): number => Math.floor(time / STEP_MS) * STEP_MS

/**
 * The counts behind the chart. Past steps do not change: they are read once, and only the last
 * steps again.
 */
export class EventHistory {
  readonly #feed: Pick<StatusFeed, 'countEvents'>
  readonly #steps = new Map<number, EventCounts>()

  constructor(feed: Pick<StatusFeed, 'countEvents'>) {
    this.#feed = feed
  }

  /** Reads everything, the newest first. */
  async readAll(now: Date): Promise<void> {
    const oldest = floor(now.getTime()) - (STEPS - 1) * STEP_MS
    for (let to = floor(now.getTime()) + STEP_MS; to > oldest; to -= PIECE_MS) {
      await this.#read(Math.max(oldest, to - PIECE_MS), to)
    }
  }

  /** Reads the steps that may have changed. */
  readLast(now: Date): Promise<void> {
    return this.#read(floor(now.getTime() - SETTLE_MS), floor(now.getTime()) + STEP_MS)
  }

  /** Every step of the chart, the oldest first; those without events are zero. */
  steps(now: Date): readonly EventCounts[] {
    const last = floor(now.getTime())
    return Array.from({ length: STEPS }, (_, index) => {
      const start = last - (STEPS - 1 - index) * STEP_MS
      return this.#steps.get(start) ?? { start: new Date(start), granted: 0, refused: 0, relayed: 0, closed: 0 }
    })
  }

  async #read(from: number, to: number): Promise<void> {
    const found = await this.#feed.countEvents(new Date(from), new Date(to), STEP_S)
    for (const start of this.#steps.keys()) {
      if (start < to - STEPS * STEP_MS || (start >= from && start < to)) this.#steps.delete(start)
    }
    for (const counts of found) this.#steps.set(counts.start.getTime(), counts)
  }
}
