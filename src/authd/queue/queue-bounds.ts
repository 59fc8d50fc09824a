/** Limits of the queue between the login sources and the grant store. */
export type QueueBounds = {
  /**
   * Logins that wait for a commit while the store is available. Above this number only the newest
   * login of each address is kept.
   */
  readonly pending: number
  /** Above this number, sources that can wait stop reading. */
  readonly highWater: number
  /** Addresses kept while the store is unavailable (spec/wrap-and-db.md §6). */
  readonly kept: number
}

/** The limits of authd. */
export const QUEUE_BOUNDS: QueueBounds = { pending: 100_000, highWater: 5000, kept: 10_000 }
