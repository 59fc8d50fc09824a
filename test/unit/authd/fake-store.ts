import type { GrantOutcome, GrantWriter, Login } from '../../../src/grants/grant-store.ts'

/** Determines the result of the next commit; stored logins are in `stored`. */
export class FakeStore implements Pick<GrantWriter, 'record'> {
  readonly stored: Login[] = []
  /** Logins of each commit that succeeded. */
  readonly batches: number[] = []
  /** Logins of each commit that began. */
  readonly begun: number[] = []
  /** A promise that every commit awaits. */
  gate: Promise<void> = Promise.resolve()
  failure: Error | undefined
  /** The server refuses logins of this user, and with them the whole batch. */
  poison: string | undefined
  /** Another transaction has locked the rows of these addresses. */
  readonly locked = new Set<string>()
  /** Called before a batch is refused because of a lock: the wait for the lock. */
  waitForLock: () => void = () => undefined
  until = 1_764_000_000

  async record(logins: readonly Login[]): Promise<readonly GrantOutcome[]> {
    this.begun.push(logins.length)
    await this.gate
    if (this.failure !== undefined) throw this.failure
    if (logins.some(({ event }) => event.user === this.poison)) {
      throw Object.assign(new Error('invalid byte sequence'), { code: '22021' })
    }
    if (logins.some(({ event }) => this.locked.has(event.ip))) {
      this.waitForLock()
      throw Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' })
    }
    this.stored.push(...logins)
    this.batches.push(logins.length)
    return logins.map(({ event }) =>
      event.user === 'refused' ? { kind: 'refused', reason: 'blocked' } : { kind: 'granted', until: this.until },
    )
  }
}

/** A promise and the function that resolves it. */
export function held(): { readonly promise: Promise<void>; release(): void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { promise, release: resolve }
}
