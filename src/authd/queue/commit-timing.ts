/**
 * When waiting logins are committed: at once, together with later logins, or beside the transaction
 * under way.
 */

/**
 * Milliseconds after which logins no longer wait for the end of the transaction under way. A
 * transaction takes that long if it waits for a row lock or for a slow disk.
 */
const SECOND_COMMIT_AFTER_MS = 10
/** Logins for which a second transaction is worth its cost at once. */
const SECOND_COMMIT_FOR = 64
/**
 * Milliseconds that a login waits for others under load, when no transaction is under way. The
 * logins share a transaction, because each transaction costs the database more than the rows it
 * holds.
 */
const COMPANY_WAIT_MS = 3
/** Logins that make a transaction at once, because more of them would only wait longer. */
const COMPANY = 4
/**
 * Logins are under load while they come at shorter intervals than this on average, in milliseconds.
 * A single client is slower.
 */
const LOAD_INTERVAL_MS = 4
/** Weight of the newest interval in that average. */
const NEWEST_PART = 1 / 16
/**
 * A longer interval counts as this one, so that a burst after a quiet hour takes effect at once.
 */
const LONGEST_INTERVAL_MS = 32

/** Decides when logins that wait go into a transaction. Times in milliseconds. */
export class CommitTiming {
  #lastTaken = Number.NEGATIVE_INFINITY
  /** Average time between two logins. */
  #interval = LONGEST_INTERVAL_MS

  /** Counts a login. `now`: by a clock that does not step. */
  taken(now: number): void {
    const latest = Math.min(now - this.#lastTaken, LONGEST_INTERVAL_MS)
    this.#lastTaken = now
    this.#interval += (latest - this.#interval) * NEWEST_PART
  }

  /** Returns how long waiting logins wait for others. The logins of a single client never wait. */
  waitForOthers(waiting: number, commitsUnderWay: number): number {
    if (commitsUnderWay > 0) return waiting < SECOND_COMMIT_FOR ? SECOND_COMMIT_AFTER_MS : 0
    return this.#interval < LOAD_INTERVAL_MS && waiting < COMPANY ? COMPANY_WAIT_MS : 0
  }
}
