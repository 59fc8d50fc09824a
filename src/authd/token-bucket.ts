/**
 * Lets `burst` things through at once and `perSecond` of them in the long run. `clock`:
 * milliseconds that only grow.
 */
export class TokenBucket {
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

  /** True if one more may pass, which counts. */
  take(): boolean {
    const now = this.#clock()
    this.#tokens = Math.min(this.#burst, this.#tokens + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#tokens < 1) return false
    this.#tokens -= 1
    return true
  }
}
