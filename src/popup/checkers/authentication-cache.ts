import { randomBytes } from 'node:crypto'
import type { Clock } from '../../base/clock.ts'
import { KeyedHash } from '../../base/keyed-hash.ts'
import { type InTurn, verifyPassword } from './password-hash.ts'

/** Rows; above that the oldest goes. */
const MAX_ROWS = 50_000

type Row = { readonly proof: string; readonly until: number }

/**
 * Spares the clients that look for mail every few minutes the hash that is made to be slow: a
 * password that was found right is known
 * again for a while by its keyed hash, under a key that never leaves this process. The row belongs
 * to the stored hash, so
 * it is void at once when the password is changed or the account locked. Wrong passwords always cost the whole hash.
 */
export class AuthenticationCache {
  readonly #keyed = new KeyedHash(randomBytes(32))
  readonly #rows = new Map<string, Row>()
  readonly #lifeMs: number
  readonly #clock: Clock

  /** `lifeMs`: milliseconds from the last real check; 0: nothing is remembered. */
  constructor(lifeMs: number, clock: Clock) {
    this.#lifeMs = lifeMs
    this.#clock = clock
  }

  /** As verifyPassword. */
  verify(password: string, stored: string, inTurn?: InTurn): Promise<boolean | undefined> | boolean {
    if (this.#lifeMs === 0) return verifyPassword(password, stored, inTurn)
    const now = this.#clock()
    const row = this.#rows.get(stored)
    if (row !== undefined && row.until > now && this.#keyed.matches(textOf(password, stored), row.proof)) return true
    return this.#verifyAnew(password, stored, now, inTurn)
  }

  async #verifyAnew(
    password: string,
    stored: string,
    now: number,
    inTurn: InTurn | undefined,
  ): Promise<boolean | undefined> {
    const right = await verifyPassword(password, stored, inTurn)
    if (right === true) {
      this.#rows.delete(stored)
      this.#rows.set(stored, { proof: this.#keyed.hex(textOf(password, stored)), until: now + this.#lifeMs })
      if (this.#rows.size > MAX_ROWS) {
        const [oldest] = this.#rows.keys()
        if (oldest !== undefined) this.#rows.delete(oldest)
      }
    }
    return right
  }
}

/** Passwords hold no NUL: none can reach the checker (RFC 1939 lines, RFC 4616). */
const textOf = (password: string, stored: string): string =>
  `${Buffer.from(stored, 'utf8').toString('latin1')}\0${password}`
