const DAY_MS = 86_400_000
/** Keys that are remembered: an attacker with many addresses gets a hint twice, and no more memory. */
const MOST = 10_000

/** Says whether a hint is due: once a day for each key, such as a client's address. */
export class DailyHints {
  /** In order of time. */
  readonly #given = new Map<string, number>()
  readonly #now: () => number

  /** `now`: milliseconds of a clock that nobody sets. */
  constructor(now: () => number = () => performance.now()) {
    this.#now = now
  }

  /** True the first time within a day. */
  isDue(key: string): boolean {
    const now = this.#now()
    const last = this.#given.get(key)
    if (last !== undefined && now - last < DAY_MS) return false
    this.#given.delete(key)
    this.#given.set(key, now)
    const [oldest] = this.#given.keys()
    if (this.#given.size > MOST && oldest !== undefined) this.#given.delete(oldest)
    return true
  }
}
