import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database } from '../../src/database/database.ts'
import { ignored } from '../../src/database/statement.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { loginFrom, publicAddress } from '../harness/authd/authd-client.ts'
import { eventually } from '../harness/eventually.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

let database: TestDatabase
let writer: Database
beforeAll(async () => {
  database = await createTestDatabase()
  writer = database.open('pop3authd', { max: 1, planOnce: true })
})
afterAll(() => database.remove())

const policy = grantPolicy()

let minute = 0

/** Forty addresses log in, five at a time, and again every minute. */
async function logins(rounds: number): Promise<void> {
  const store = createGrantWriter(writer, policy, { now: () => new Date(Date.UTC(2026, 0, 1, 12, minute)) })
  for (const last = minute + rounds; minute < last; minute++) {
    for (let n = 0; n < 40; n += 5) {
      const events = Array.from({ length: 5 }, (_, k) => loginFrom(`1.${n + k}`, publicAddress(n + k)))
      await store.record(events.map(event => ({ event, at: null })))
    }
  }
}

/**
 * Number of updates of rows in the table of grants, and number of those that stayed in their page.
 */
async function updates(): Promise<{ readonly updated: number; readonly inPlace: number }> {
  await writer.query({ text: 'SELECT pg_stat_force_next_flush()', row: ignored })
  const { rows } = await database.owner.query({
    text: "SELECT n_tup_upd::int AS updated, n_tup_hot_upd::int AS in_place FROM pg_stat_user_tables WHERE relname = 'grants'",
    row: v.object({ updated: v.number(), in_place: v.number() }),
  })
  return { updated: rows[0]?.updated ?? 0, inPlace: rows[0]?.in_place ?? 0 }
}

test('a login from an address with a grant changes no index, and its statement is planned once', async () => {
  await logins(1)
  let before = await updates()
  // A concurrent reader of the table, such as autovacuum, keeps old rows in their pages, so that
  // there is no space for new rows.
  await eventually('refreshes in place', async () => {
    await logins(19)
    const after = await updates()
    expect(after.updated - before.updated).toBe(19 * 40)
    const share = (after.inPlace - before.inPlace) / (19 * 40)
    before = after
    return share > 0.9
  })
  const plans = await writer.query({
    text: "SELECT generic_plans::int AS once, custom_plans::int AS anew FROM pg_prepared_statements WHERE name = 'record-logins'",
    row: v.object({ once: v.number(), anew: v.number() }),
  })
  expect(plans.rows).toEqual([{ once: minute * 8, anew: 0 }])
})
