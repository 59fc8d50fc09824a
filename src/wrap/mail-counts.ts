/** Counts of messages and recipients within the last hour or day, with their limits. */
import { BoundedMap } from '../base/bounded-map.ts'
import type { Clock } from '../base/clock.ts'
import type { DeviceCounts } from '../wire/services/gate-report.ts'

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS
/** Keys of a count. The oldest one is dropped first, so that no sender can fill the memory. */
const MAX_KEYS = 50_000

/** Counts of the period with number `period` (`now`), and of the period before it. */
type Count = { period: number; now: number; before: number }

/**
 * Counts for each key over the last hour or another period. Each key has a counter for the current
 * period of the clock and one for the previous period. The previous period counts in proportion to
 * its part within the last period. So a client cannot use the limit twice around the full hour.
 */
export class PeriodCount {
  /**
   * Limit for each period and key, unless a call has its own. With 0 there is no limit, and nothing
   * is counted. A reload changes the limit.
   */
  limit: number
  readonly #clock: Clock
  readonly #periodMs: number
  readonly #counts = new BoundedMap<string, Count>(MAX_KEYS)

  constructor(limit: number, clock: Clock, periodMs = HOUR_MS) {
    this.limit = limit
    this.#clock = clock
    this.#periodMs = periodMs
  }

  /** True if one more is within the limit. Counts nothing: call `add` if the mail is accepted. */
  allows(key: string, limit = this.limit): boolean {
    return limit === 0 || this.#rate(key) + 1 <= limit
  }

  /** The time, in Unix milliseconds, from which one more is within the limit, if none is added. */
  allowsFrom(key: string, limit = this.limit): number {
    if (this.allows(key, limit)) return this.#clock()
    const { period, now, before } = this.#counted(key)
    const free = limit - 1
    // The count of a period falls in proportion to time during the next period.
    const part = now > free ? 1 + (1 - free / now) : 1 - (free - now) / before
    return Math.ceil((period + part) * this.#periodMs)
  }

  /** The count of the key now, rounded up. */
  counted(key: string): number {
    return Math.ceil(this.#rate(key))
  }

  add(key: string, limit = this.limit): void {
    if (limit === 0) return
    const count = this.#counted(key)
    count.now += 1
    this.#counts.renew(key, count)
  }

  /** Undoes one `add`, because the message was not sent. */
  takeBack(key: string): void {
    const count = this.#counts.get(key)
    if (count === undefined) return
    if (count.now > 0) count.now -= 1
    else if (count.before > 0) count.before -= 1
  }

  #rate(key: string): number {
    const { now, before } = this.#counted(key)
    const part = (this.#clock() % this.#periodMs) / this.#periodMs
    return now + before * (1 - part)
  }

  #counted(key: string): Count {
    const period = Math.floor(this.#clock() / this.#periodMs)
    const known = this.#counts.get(key)
    if (known === undefined) return { period, now: 0, before: 0 }
    if (known.period === period) return known
    return { period, now: 0, before: known.period === period - 1 ? known.now : 0 }
  }
}

/** Limits for one hour; 0: no limit. */
export type MailLimits = {
  readonly messages_per_login: number
  readonly messages_per_address: number
  readonly recipients_per_login: number
  readonly recipients_per_address: number
}

/**
 * The counters that the policy service, the query service and the front share. New limits apply to
 * existing counts.
 */
export class MailCounts {
  readonly messagesPerLogin: PeriodCount
  readonly messagesPerAddress: PeriodCount
  readonly recipientsPerLogin: PeriodCount
  readonly recipientsPerAddress: PeriodCount
  /** Counts by device name, against the limits of each device. */
  readonly device: {
    readonly messagesPerHour: PeriodCount
    readonly messagesPerDay: PeriodCount
    readonly recipientsPerHour: PeriodCount
    readonly recipientsPerDay: PeriodCount
  }

  constructor(limits: MailLimits, clock: Clock) {
    this.messagesPerLogin = new PeriodCount(limits.messages_per_login, clock)
    this.messagesPerAddress = new PeriodCount(limits.messages_per_address, clock)
    this.recipientsPerLogin = new PeriodCount(limits.recipients_per_login, clock)
    this.recipientsPerAddress = new PeriodCount(limits.recipients_per_address, clock)
    this.device = {
      messagesPerHour: new PeriodCount(0, clock),
      messagesPerDay: new PeriodCount(0, clock, DAY_MS),
      recipientsPerHour: new PeriodCount(0, clock),
      recipientsPerDay: new PeriodCount(0, clock, DAY_MS),
    }
  }

  /** Returns the counts of a device. */
  countsOf(name: string): DeviceCounts {
    const { messagesPerHour, messagesPerDay, recipientsPerHour, recipientsPerDay } = this.device
    return {
      messagesPerHour: messagesPerHour.counted(name),
      messagesPerDay: messagesPerDay.counted(name),
      recipientsPerHour: recipientsPerHour.counted(name),
      recipientsPerDay: recipientsPerDay.counted(name),
    }
  }

  /** Changes the limits. */
  limit(limits: MailLimits): void {
    this.messagesPerLogin.limit = limits.messages_per_login
    this.messagesPerAddress.limit = limits.messages_per_address
    this.recipientsPerLogin.limit = limits.recipients_per_login
    this.recipientsPerAddress.limit = limits.recipients_per_address
  }
}
