import type { Clock } from '../../base/clock.ts'
import type { LoginText } from '../login-name.ts'

/** Logins remembered; above that the one that logged in longest ago is forgotten. */
const MAX_ROWS = 100_000

/** LOGIN-DELAY (RFC 2449 §6.5): the shortest time between two logins of one user. */
export class LoginIntervals {
  #minimum: number
  readonly #clock: Clock
  readonly #last = new Map<LoginText, number>()

  /** `minimum` in milliseconds; 0 = none. */
  constructor(minimum: number, clock: Clock) {
    this.#minimum = minimum
    this.#clock = clock
  }

  /** Puts another interval in force, which counts from the logins that are remembered. */
  use(minimum: number): void {
    this.#minimum = minimum
  }

  /** True if the user may log in now, which counts as his last login from then on. */
  take(login: LoginText): boolean {
    if (this.#minimum === 0) return true
    const now = this.#clock()
    const last = this.#last.get(login)
    if (last !== undefined && now - last < this.#minimum) return false
    this.#last.delete(login)
    this.#last.set(login, now)
    const [oldest] = this.#last.keys()
    if (this.#last.size > MAX_ROWS && oldest !== undefined) this.#last.delete(oldest)
    return true
  }
}
