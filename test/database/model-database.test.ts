import { fc } from '@fast-check/vitest'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database } from '../../src/database/database.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import type { BlockTarget } from '../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { formatNetwork } from '../../src/wire/ip-address.ts'
import { ip as ipOf, net as networkOf } from '../harness/addresses.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase } from '../harness/postgres/test-database.ts'
import { assertRuns } from '../harness/runner/check-runs.ts'
import { GrantStatements, immediateDatabase, Tables } from '../simulation/model-database.ts'
import { ADDRESSES } from '../simulation/plan.ts'

const EPOCH = Date.UTC(2026, 0, 5)
const NETWORKS = ['192.0.2.7/32', '192.0.2.0/24', '2001:db8::/64', '2001:db8::7/128', '0.0.0.0/1']
const LOGINS = ['ann', 'Ann', 'ben']

const address = fc.constantFrom(...ADDRESSES)
const network = fc.constantFrom(...NETWORKS)
const seconds = fc.option(fc.integer({ min: 1, max: 2000 }), { nil: null })
const login = fc.record({
  ip: address,
  user: fc.constantFrom(...LOGINS),
  tls: fc.boolean(),
  /** Seconds before now; null: now. */
  ago: fc.option(fc.integer({ min: -30, max: 2500 }), { nil: null }),
})

const deed = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({ kind: fc.constant('record'), logins: fc.array(login, { minLength: 1, maxLength: 5 }) }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('pass'), seconds: fc.integer({ min: 0, max: 1900 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('set-back'), seconds: fc.integer({ min: 1, max: 200 }) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('allow', 'block'), network, seconds }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constantFrom('disallow', 'unblock'), network }) },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom('block-login', 'unblock-login'),
      login: fc.constantFrom(...LOGINS),
      seconds,
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('sweep') }) },
)
type Deed = typeof deed extends fc.Arbitrary<infer T> ? T : never

const policies = [
  grantPolicy({ ipv6Prefix: 64 }),
  grantPolicy({ ipv6Prefix: 128, maxLifetime: 3600, storeUser: false }),
  grantPolicy({ expTime: 60, maxLifetime: 90, ipv6Prefix: 64 }),
]

/**
 * Runs a history on a database. Returns every answer, and after each step the addresses that may
 * relay.
 */
async function answersOf(
  database: Database,
  policy: (typeof policies)[number],
  history: readonly Deed[],
): Promise<readonly unknown[]> {
  let clock = EPOCH
  const now = (): Date => new Date(clock)
  const writer = createGrantWriter(database, policy, { now })
  const reader = createGrantReader(database, policy, { now })
  const admin = createGrantAdmin(database, policy, { now })
  const terms = (forSeconds: number | null) => ({ forSeconds, reason: 'tests', owner: 'root' })
  const run = async (what: Deed): Promise<unknown> => {
    switch (what.kind) {
      case 'record':
        return writer.record(
          what.logins.map(({ ip, user, tls, ago }, index) => ({
            event: { id: `1.${index + 1}`, ip: ipOf(ip), daemon: 'popup', tls, method: 'pass', user },
            at: ago === null ? null : new Date(clock - ago * 1000),
          })),
        )
      case 'pass':
        clock += what.seconds * 1000
        return undefined
      case 'set-back':
        clock -= what.seconds * 1000
        return undefined
      case 'allow':
        return admin.allow(networkOf(what.network), terms(what.seconds))
      case 'disallow':
        return admin.disallow(networkOf(what.network))
      case 'block':
        return admin.block(aboutNetwork(what.network), terms(what.seconds))
      case 'unblock':
        return admin.unblock(aboutNetwork(what.network))
      case 'block-login':
        return admin.block({ kind: 'login', login: what.login }, terms(what.seconds))
      case 'unblock-login':
        return admin.unblock({ kind: 'login', login: what.login })
      case 'sweep':
        return writer.sweep()
    }
  }
  const answers: unknown[] = []
  for (const what of history) {
    answers.push(await run(what))
    // The first lookups begin alone, and one statement answers the rest.
    const found = await Promise.all(ADDRESSES.map(text => reader.lookup(ipOf(text))))
    for (const grant of found) answers.push({ at: clock, ...grant })
    const listed = await reader.current()
    answers.push(
      listed.map(({ network, ...rest }) => JSON.stringify({ network: formatNetwork(network), ...rest })).sort(),
    )
  }
  return answers
}

describe('the model of the database in the simulation', () => {
  let postgres: Awaited<ReturnType<typeof createTestDatabase>>
  let owner: Database
  beforeAll(async () => {
    postgres = await createTestDatabase()
    owner = postgres.owner
  })
  afterAll(() => postgres.remove())

  test.each(policies.map((policy, index) => [index, policy] as const))(
    'gives the same answers as PostgreSQL, policy %i',
    async (_, policy) => {
      await assertRuns(
        fc.array(deed, { maxLength: 25 }),
        async history => {
          await owner.script('TRUNCATE grants, blocks, allowances, neighbours, login_event, usage_event')
          const tables = new Tables()
          const model = immediateDatabase(
            new GrantStatements(),
            () => tables,
            () => Number.NaN,
          )
          expect(await answersOf(model, policy, history)).toEqual(await answersOf(owner, policy, history))
        },
        { numRuns: 25, interruptAfterTimeLimit: 45_000 },
      )
    },
  )
})

const aboutNetwork = (text: string): BlockTarget => ({ kind: 'network', network: networkOf(text) })
