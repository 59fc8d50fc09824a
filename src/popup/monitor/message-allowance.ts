import type { Clock } from '../../base/clock.ts'

/**
 * A bucket of messages, or of their octets, that fills again with time: bounds what one login
 * process can make the monitor do.
 */
export class MessageAllowance {
  readonly #perSecond: number
  readonly #burst: number
  readonly #clock: Clock
  #left: number
  #at: number

  constructor(perSecond: number, burst: number, clock: Clock) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#clock = clock
    this.#left = burst
    this.#at = clock()
  }

  /** Takes some; false if there are not so many. */
  take(count = 1): boolean {
    const now = this.#clock()
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#left < count) return false
    this.#left -= count
    return true
  }
}
