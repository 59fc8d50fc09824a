import type { GrantWriter, Login, Outcome } from '../../../src/grants/grant-store.ts'

/** Says what the next commit does; logins it took are in `stored`. */
export class FakeStore implements Pick<GrantWriter, 'record'> {
  readonly stored: Login[] = []
  /** Logins of each commit that succeeded. */
  readonly batches: number[] = []
  /** Logins of each commit that began. */
  readonly begun: number[] = []
  /** What every commit waits for. */
  gate: Promise<void> = Promise.resolve()
  failure: Error | undefined
  /** Logins of this user are never taken: the server says so for the whole batch. */
  poison: string | undefined
  /** Another transaction has locked the row of this address. */
  lockedIp: string | undefined
  until = 1_764_000_000

  async record(logins: readonly Login[]): Promise<readonly Outcome[]> {
    this.begun.push(logins.length)
    await this.gate
    if (this.failure !== undefined) throw this.failure
    if (logins.some(({ event }) => event.user === this.poison)) {
      throw Object.assign(new Error('invalid byte sequence'), { code: '22021' })
    }
    if (logins.some(({ event }) => event.ip === this.lockedIp)) {
      throw Object.assign(new Error('canceling statement due to lock timeout'), { code: '55P03' })
    }
    this.stored.push(...logins)
    this.batches.push(logins.length)
    return logins.map(({ event }) =>
      event.user === 'refused' ? { verdict: 'refused', reason: 'blocked' } : { verdict: 'granted', until: this.until },
    )
  }
}

/** A promise and the function that resolves it. */
export function held(): { readonly promise: Promise<void>; release(): void } {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { promise, release: resolve }
}
