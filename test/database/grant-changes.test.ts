import { afterAll, beforeAll, expect, test } from 'vitest'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { listenForChanges } from '../../src/grants/grant-changes.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { parseNetwork } from '../../src/wire/ip-address.ts'
import { loginFrom } from '../harness/authd/authd-client.ts'
import { eventually } from '../harness/eventually.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

let database: TestDatabase
beforeAll(async () => {
  database = await createTestDatabase()
})
afterAll(() => database.remove())

const policy = grantPolicy()

test('a listener is notified of a new grant and of each change by the administrator, not of a refresh', async () => {
  const clock = { now: new Date('2026-01-01T12:00:00Z') }
  const now = () => clock.now
  const writer = createGrantWriter(database.open('pop3authd', { max: 1 }), policy, { now })
  const admin = createGrantAdmin(database.open('pop3authd', { max: 1 }), policy, { now })
  let received = 0
  const listener = listenForChanges({ ...database.connection('authwrap'), applicationName: 'tests' }, () => {
    received += 1
  })
  const expectNotification = async (what: string, act: () => Promise<unknown>): Promise<void> => {
    const before = received
    await act()
    await eventually(`a notification of ${what}`, () => received > before)
  }
  const login = (ip: string) => writer.record([{ event: loginFrom('1.1', ip), at: null }])
  await expectNotification('the beginning', async () => undefined)
  await expectNotification('a first login', () => login('203.0.113.7'))
  // At most one more notification arrives, for changes within the pause. The next notification is
  // about the next change.
  clock.now = new Date('2026-01-01T12:01:00Z')
  const before = received
  await login('203.0.113.7')
  await expectNotification('the next address', () => login('203.0.113.8'))
  expect(received).toBe(before + 1)
  clock.now = new Date('2026-01-01T13:00:00Z')
  await expectNotification('an ended grant that begins again', () => login('203.0.113.7'))
  const network = parseNetwork('203.0.113.0/24')
  if (network === undefined) throw new Error('not a network')
  const request = { forSeconds: 60, reason: 'tests', owner: 'root' }
  await expectNotification('an allowance', () => admin.allow(network, request))
  await expectNotification('its end', () => admin.disallow(network))
  await expectNotification('a block', () => admin.block({ kind: 'network', network }, request))
  await expectNotification('its end', () => admin.unblock({ kind: 'network', network }))
  // The server ends every connection of the listener, and the listener connects again.
  await expectNotification('a connection that is made again', () =>
    database.owner.script(
      "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'authwrap' AND datname = current_database()",
    ),
  )
  await listener.close()
})
