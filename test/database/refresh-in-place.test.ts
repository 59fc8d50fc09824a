import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Database } from '../../src/database/database.ts'
import { ignored } from '../../src/database/statement.ts'
import { GrantPolicy } from '../../src/grants/grant-policy.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { NetworkSet } from '../../src/wire/ip-address.ts'
import { loginFrom, publicAddress } from '../harness/authd-client.ts'
import { createTestDatabase, type TestDatabase } from '../harness/test-database.ts'

let database: TestDatabase
let writer: Database
beforeAll(async () => {
  database = await createTestDatabase()
  writer = database.open('pop3authd', { max: 1, planOnce: true })
})
afterAll(() => database.remove())

const policy = new GrantPolicy({
  expTime: 1800,
  maxLifetime: 0,
  ipv6Prefix: 128,
  storeUser: true,
  grantLoopback: false,
  denyPrivate: false,
  neverNets: new NetworkSet([]),
  ownAddresses: () => new Set(),
})

/** Forty addresses log in, five at a time, and again every minute; time of the last. */
async function refreshes(rounds: number): Promise<void> {
  let minute = 0
  const store = createGrantWriter(writer, policy, { now: () => new Date(Date.UTC(2026, 0, 1, 12, minute)) })
  for (; minute < rounds; minute++) {
    for (let n = 0; n < 40; n += 5) {
      const events = Array.from({ length: 5 }, (_, k) => loginFrom(`1.${n + k}`, publicAddress(n + k)))
      await store.record(events.map(event => ({ event, at: null })))
    }
  }
}

test('a login from an address that has a grant touches no index, and its statement is planned once', async () => {
  await refreshes(20)
  await writer.query({ text: 'SELECT pg_stat_force_next_flush()', row: ignored })
  const written = await database.owner.query({
    text: "SELECT n_tup_upd::int AS updated, n_tup_hot_upd::int AS in_place FROM pg_stat_user_tables WHERE relname = 'grants'",
    row: v.object({ updated: v.number(), in_place: v.number() }),
  })
  const { updated = 0, in_place = 0 } = written.rows[0] ?? {}
  expect(updated).toBe(19 * 40)
  // The first refreshes after an insertion may find their page full.
  expect(in_place).toBeGreaterThan(0.9 * updated)
  const plans = await writer.query({
    text: "SELECT generic_plans::int AS once, custom_plans::int AS anew FROM pg_prepared_statements WHERE name = 'record-logins'",
    row: v.object({ once: v.number(), anew: v.number() }),
  })
  expect(plans.rows).toEqual([{ once: 20 * 8, anew: 0 }])
})
