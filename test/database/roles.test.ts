import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Database } from '../../src/database/database.ts'
import { StatementRefused } from '../../src/database/errors.ts'
import { migrate } from '../../src/database/migrate.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

let database: TestDatabase
let writer: Database
let reader: Database
let status: Database
beforeAll(async () => {
  // A copy of the template would lack the privileges on the database itself.
  database = await createTestDatabase({ empty: true })
  await migrate(database.owner, new URL('../../sql/', import.meta.url).pathname)
  writer = database.open('pop3authd')
  reader = database.open('authwrap')
  status = database.open('authstatus')
})
afterAll(() => database.remove())

const refusal = async (role: Database, statement: string): Promise<unknown> =>
  role.script(statement).catch((error: unknown) => error)
const FORBIDDEN = { code: '42501', temporary: false } // insufficient_privilege

const ROW = "('192.0.2.7', 'infinity', 'x')"
/** Statements that neither role may run. */
const NOBODY = [
  'CREATE TABLE mine (a int)',
  'CREATE TEMPORARY TABLE mine (a int)',
  'CREATE SCHEMA mine',
  'CREATE ROLE mine',
  'CREATE DATABASE mine',
  'DROP TABLE grants',
  'ALTER TABLE grants ADD COLUMN a int',
  'TRUNCATE grants',
  'TRUNCATE login_event',
  "UPDATE login_event SET username = 'other'",
  'DELETE FROM login_event',
  'DELETE FROM login_event_default',
  'UPDATE usage_event SET service = service',
  'DELETE FROM usage_event',
  'DELETE FROM gate_decisions',
  'DELETE FROM gate_refusals',
  'UPDATE relay_use SET door = door',
  'DELETE FROM relay_use',
  'DELETE FROM gate_tally',
  'DELETE FROM gate_refused',
  'DELETE FROM blocks',
  'DELETE FROM allowances',
  "UPDATE blocks SET reason = 'none'",
  "UPDATE allowances SET net = '198.51.100.0/24'",
  'INSERT INTO schema_version (v) VALUES (99)',
  'UPDATE schema_version SET v = 0',
  'DELETE FROM schema_version',
  "UPDATE relay_gate SET until = 'infinity'",
  'ALTER ROLE authwrap SUPERUSER',
  'SET ROLE postgres',
  "SELECT pg_read_file('/etc/passwd')",
  "COPY (SELECT 1) TO '/tmp/never'",
  "COPY (SELECT 1) TO PROGRAM 'true'",
  'SELECT rolpassword FROM pg_authid',
]
/** Statements that the writer may run and the gate's role may not. */
const READER = [
  'SELECT FROM grants',
  'SELECT FROM blocks',
  'SELECT FROM allowances',
  'SELECT FROM login_event',
  'SELECT FROM usage_event',
  'SELECT FROM relay_use',
  'SELECT FROM relay',
  `INSERT INTO grants (ip, until, daemon) VALUES ${ROW}`,
  "UPDATE grants SET until = 'infinity'",
  'DELETE FROM grants',
  "INSERT INTO blocks (login, reason, owner) VALUES ('a', '', '')",
  "INSERT INTO allowances (net, reason, owner) VALUES ('198.51.100.0/24', '', '')",
  "UPDATE allowances SET until = 'infinity'",
  "INSERT INTO login_event (at, ip, network, daemon, method, tls, session, refused) VALUES (now(), '::9', '::9', '', '', true, '', 'x')",
  "INSERT INTO usage_event (at, ip, service) VALUES (now(), '192.0.2.7', 'x')",
  "INSERT INTO relay_use (at, ip, door) VALUES (now(), '192.0.2.7', 'x')",
  'SELECT FROM gate_decisions',
  'SELECT FROM gate_refusals',
  'SELECT FROM alarm',
  "INSERT INTO gate_decisions VALUES (now(), 'mx', 'gate', 1, 1, 1, 1)",
  'UPDATE gate_decisions SET refused = 0',
  "INSERT INTO gate_refusals VALUES ('mx', 'gate', now(), '{192.0.2.7}')",
  'SELECT FROM gate_tally',
  'SELECT FROM gate_refused',
  'SELECT FROM alarms',
  'UPDATE alarms SET told_start = now()',
  "INSERT INTO gate_tally VALUES (now(), 'mx', 'gate', 1, 1, 1, 1)",
  'UPDATE gate_tally SET refused = 0',
  "INSERT INTO gate_refused VALUES ('mx', 'gate', now(), '{192.0.2.7}')",
  'SELECT keep_history(1)',
  'SELECT FROM ungrantable',
  "INSERT INTO ungrantable (host, net, alone) VALUES ('mx', '198.51.100.0/24', false)",
  'DELETE FROM ungrantable',
  "INSERT INTO relay_allowances (net) VALUES ('198.51.100.0/24')",
  'SELECT FROM status_grants',
  'SELECT FROM status_events',
  'SELECT FROM status_gate_decisions',
  'SELECT FROM status_totals',
  'SELECT FROM status_gate',
  'SELECT FROM status_decrees',
]
/** Statements that the gate's role may run and the status page's role may not. */
const STATUS = [
  ...READER.filter(text => !text.includes('status_')),
  'SELECT FROM relay_gate',
  'SELECT FROM relay_clients',
  'SELECT FROM relay_ungrantable',
  "SELECT may_relay('192.0.2.7')",
]

describe('pop3authd can do nothing beyond its work', () => {
  test.each(NOBODY)('%s', async statement => {
    const error = await refusal(writer, statement)
    expect(error).toBeInstanceOf(StatementRefused)
    expect(error).toMatchObject(FORBIDDEN)
  })
})

describe('authwrap can only read grants', () => {
  test.each([...NOBODY, ...READER])('%s', async statement => {
    const error = await refusal(reader, statement)
    expect(error).toBeInstanceOf(StatementRefused)
    expect(error).toMatchObject(FORBIDDEN)
  })
})

describe('authstatus can only read the status', () => {
  test.each([...NOBODY, ...STATUS])('%s', async statement => {
    const error = await refusal(status, statement)
    expect(error).toBeInstanceOf(StatementRefused)
    expect(error).toMatchObject(FORBIDDEN)
  })
})

describe('statements that the roles may run', () => {
  const allowed = async (role: Database, ...statements: readonly string[]): Promise<void> => {
    for (const statement of statements) expect(await refusal(role, statement), statement).toBeUndefined()
  }

  test('pop3authd: stores grants', () =>
    allowed(
      writer,
      `INSERT INTO grants (ip, until, daemon) VALUES ${ROW}; UPDATE grants SET hits = 2; DELETE FROM grants`,
      "INSERT INTO blocks (login, reason, owner) VALUES ('a', '', ''); UPDATE blocks SET until = now()",
      "INSERT INTO usage_event (at, ip, service) VALUES (now(), '192.0.2.7', 'x'); SELECT keep_history(3)",
      "INSERT INTO gate_decisions VALUES (now(), 'mx', 'gate', 1, 1, 1, 1); UPDATE gate_decisions SET refused = refused + 1; TABLE gate_refusals",
      "INSERT INTO alarm (rule, subject, detail, since, seen) VALUES ('x', 'x', '', now(), now()); UPDATE alarm SET start_reported = now(); DELETE FROM alarm",
    ))

  test('authwrap: looks up grants', () =>
    allowed(
      reader,
      'TABLE relay_gate; TABLE relay_blocks; TABLE relay_allowances; TABLE relay_clients; TABLE relay_ungrantable; TABLE schema_version',
      "SELECT may_relay('192.0.2.7')",
    ))

  test('authstatus: reads the status', () =>
    allowed(
      status,
      'TABLE status_grants; TABLE status_events; TABLE status_totals; TABLE status_gate_decisions; TABLE schema_version',
    ))
})
