import * as v from 'valibot'
import { type DatabaseOptions, type DatabaseState, openDatabase } from '../database/database.ts'
import { int8, type Statement } from '../database/statement.ts'
import type { GrantPolicy } from './grant-policy.ts'
import type { GrantWriter } from './grant-store.ts'
import { createGrantWriter } from './grant-writer.ts'

const COUNT: Statement<{ live: number }> = {
  name: 'count-grants',
  row: v.object({ live: int8 }),
  text: 'SELECT count(*) AS live FROM grants WHERE until > now()',
}

/** The writing side of the grants with a database connection of its own. */
export type OpenGrantWriter = GrantWriter & {
  /** Puts another policy in force from the next call on. */
  usePolicy(policy: GrantPolicy): void
  /** Grants that have not ended. */
  countLive(): Promise<number>
  state(): DatabaseState
  /** Calls at each change from now on. */
  onStateChange(listener: (state: DatabaseState) => void): void
  close(): Promise<void>
}

/** Connects in the background: what is asked before the database is there fails with DatabaseUnavailable. */
export function openGrantWriter(options: DatabaseOptions, policy: GrantPolicy): OpenGrantWriter {
  const database = openDatabase({ ...options, planOnce: true })
  let writer = createGrantWriter(database, policy)
  return {
    record: (logins, query) => writer.record(logins, query),
    recordUses: (uses, query) => writer.recordUses(uses, query),
    recordTallies: (tallies, query) => writer.recordTallies(tallies, query),
    publishUngrantable: query => writer.publishUngrantable(query),
    sweep: query => writer.sweep(query),
    keepHistory: (keepDays, query) => writer.keepHistory(keepDays, query),
    usePolicy(next) {
      writer = createGrantWriter(database, next)
      // While the database is away, the next sweep publishes it.
      void writer.publishUngrantable().catch(() => undefined)
    },
    async countLive() {
      const { rows } = await database.query(COUNT)
      return rows[0]?.live ?? 0
    },
    state: () => database.state(),
    onStateChange: listener => void database.onStateChange(listener),
    close: () => database.close(),
  }
}
