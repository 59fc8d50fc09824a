import { cpSync, readdirSync, rmSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Database, type DatabaseOptions, openDatabase } from '../../src/database/database.ts'
import { migrate, readMigrations } from '../../src/database/migrate.ts'
import { ignored, type Value } from '../../src/database/statement.ts'
import { type AlarmLimits, Alarms } from '../../src/grants/alarms.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { refusedSince, relaysSince, reportUsage, talliesSince } from '../../src/grants/history.ts'
import { createStatusFeed } from '../../src/grants/status-feed.ts'
import type { RelayTally } from '../../src/wire/usage-event.ts'
import { ip } from '../harness/addresses.ts'
import { eventually } from '../harness/eventually.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { createTestDatabase } from '../harness/postgres/test-database.ts'
import { describeWith } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import * as former from './schema-18-statements.ts'

const SQL = new URL('../../sql/', import.meta.url).pathname
const LATEST = readdirSync(SQL).filter(name => /^\d{6}-/.test(name)).length
const LIMITS: AlarmLimits = {
  loginAddresses: 10,
  addressLogins: 20,
  deviceFactor: 5,
  refusalFactor: 5,
  silentDays: 7,
  endDays: 14,
}
/** The decisions of these tests would open this alarm. */
const OFF = ['gate_undecided']
const HOST = 'old.example.org'
const LONG_AGO = new Date('2021-01-02T12:00:00Z')
const EPOCH = new Date(0)

/** A server with an empty database. */
type Server = {
  readonly owner: Database
  open(role: 'pop3authd' | 'authwrap' | 'authstatus', options?: Partial<DatabaseOptions>): Database
  remove(): Promise<void>
}

async function debianServer(): Promise<Server> {
  const cluster = await PostgresCluster.start()
  const opened: Database[] = []
  const open = (user: string, options: Partial<DatabaseOptions> = {}): Database => {
    const database = openDatabase({
      hosts: [{ host: '127.0.0.1', port: cluster.port }],
      database: 'postgres',
      user,
      password: { reveal: () => PostgresCluster.password },
      applicationName: 'tests',
      ...options,
    })
    opened.push(database)
    return database
  }
  const owner = open('postgres')
  for (const role of ['pop3authd', 'authwrap', 'authstatus'])
    await owner.script(`CREATE ROLE ${role} LOGIN NOINHERIT PASSWORD '${PostgresCluster.password}'`)
  return {
    owner,
    open,
    async remove() {
      await Promise.all(opened.map(database => database.close()))
      await cluster.remove()
    },
  }
}

/** Brings an empty database to schema 18. */
async function migrateTo18(owner: Database): Promise<void> {
  const directory = temporaryDirectory()
  cpSync(SQL, directory.path, { recursive: true })
  const later = (name: string): boolean => !/^\d{6}-/.test(name) || Number(name.slice(0, 6)) > 18
  for (const name of readdirSync(directory.path).filter(later)) rmSync(`${directory.path}/${name}`)
  expect(await migrate(owner, directory.path)).toEqual({ from: 0, to: 18 })
  directory.remove()
}

const lines = async (database: Database, text: string): Promise<readonly string[]> =>
  (await database.query({ text, row: v.object({ line: v.string() }) })).rows.map(({ line }) => line)

/** Runs a statement of schema 18; rows as the driver returns them. */
const run = async (
  database: Pick<Database, 'query'>,
  text: string,
  values: readonly Value[] = [],
  name?: string,
): Promise<readonly unknown[]> =>
  (await database.query({ text, row: ignored, ...(name === undefined ? {} : { name }) }, values)).rows

const recordUsageEvents = (database: Database, at: Date | null, client: string, service = 'gate') =>
  run(database, former.RECORD_USES, [[at], [client], [service], HOST], 'record-uses')
const recordTallies = (database: Database, at: Date, counts: readonly [number, number, number, number]) =>
  run(
    database,
    former.RECORD_TALLIES,
    [HOST, [at], ['gate'], ...counts.map(count => [count]), ['gate', 'gate'], ['192.0.2.1', '2001:db8::1'], null],
    'record-tallies',
  )
const look = (database: Database, subjects: readonly string[], now: Date) =>
  run(database, former.LOOK, [
    now,
    ...Object.values(LIMITS),
    subjects.map(() => 'certificate_end'),
    subjects,
    subjects.map(() => 'ends'),
    OFF,
  ])

const SUITES = [
  { name: 'the embedded PostgreSQL', needs: [], start: () => createTestDatabase({ empty: true }) },
  { name: "the host's own PostgreSQL", needs: [DEBIAN_POSTGRES], start: debianServer },
]
describe.each(SUITES)('schema 18 to 19 on $name', ({ needs, start }) => {
  describeWith(needs, 'with programs of schema 18 that run', () => {
    let server: Server
    /** An authd of schema 18, with one connection and with prepared statements, as it has them. */
    let authd: Database
    let minute: Date
    let today: string
    beforeAll(async () => {
      server = await start()
      await migrateTo18(server.owner)
      authd = server.open('pop3authd', { max: 1, planOnce: true })
      minute = new Date(Math.floor(Date.now() / 60_000) * 60_000 - 120_000)
      today = `usage_event_${utc(minute).replaceAll('-', '')}`
      await recordUsageEvents(authd, minute, '192.0.2.7')
      await recordUsageEvents(authd, LONG_AGO, '192.0.2.8')
      await recordTallies(authd, minute, [1, 2, 3, 4])
      await look(authd, ['claimed'], new Date())
      expect(await run(authd, former.TAKE_STARTS, [LONG_AGO])).toMatchObject([{ subject: 'claimed' }])
      await look(authd, ['claimed', 'waiting'], new Date())
      expect(await migrate(server.owner, SQL)).toEqual({ from: 18, to: LATEST })
    })
    afterAll(() => server?.remove())

    test('every row has the new names and the former names', async () => {
      const uses = ['2021-01-02 192.0.2.8 gate old.example.org', `${utc(minute)} 192.0.2.7 gate old.example.org`]
      const use = (service: string, table: string): string =>
        `SELECT concat_ws(' ', (at AT TIME ZONE 'UTC')::date, host(ip), ${service}, host) AS line FROM ${table} ORDER BY at`
      expect(await lines(server.owner, use('service', 'usage_event'))).toEqual(uses)
      expect(await lines(server.owner, use('door', 'relay_use'))).toEqual(uses)
      const all = (columns: string, table: string): string => `SELECT concat_ws(' ', ${columns}) AS line FROM ${table}`
      const decisions = ['old.example.org gate 1 2 3 4']
      const counts = 'relayed, refused, undecided, never'
      expect(await lines(server.owner, all(`host, service, ${counts}`, 'gate_decisions'))).toEqual(decisions)
      expect(await lines(server.owner, all(`host, door, ${counts}`, 'gate_tally'))).toEqual(decisions)
      const refusals = ['old.example.org gate {192.0.2.1,2001:db8::1}']
      expect(await lines(server.owner, all('host, service, addresses', 'gate_refusals'))).toEqual(refusals)
      expect(await lines(server.owner, all('host, door, addresses', 'gate_refused'))).toEqual(refusals)
      const alarm = (start: string, end: string, table: string): string =>
        `SELECT concat_ws(' ', subject, ${start} IS NOT NULL, ${end} IS NOT NULL) AS line FROM ${table} ORDER BY id`
      expect(await lines(server.owner, alarm('start_reported', 'end_reported', 'alarm'))).toEqual([
        'claimed t f',
        'waiting f f',
      ])
      expect(await lines(server.owner, alarm('told_start', 'told_end', 'alarms'))).toEqual([
        'claimed t f',
        'waiting f f',
      ])
    })

    test('only views have the former names', async () => {
      const names = `
        SELECT c.relkind::text || ' ' || c.relname AS line FROM pg_class c
        WHERE c.relnamespace = 'public'::regnamespace
          AND c.relname ~ '^(relay_use|gate_tally|gate_refused|alarms)|^status_(gate|decrees)$'
        UNION ALL
        SELECT 'constraint ' || conname FROM pg_constraint
        WHERE connamespace = 'public'::regnamespace AND conname ~ '^(relay_use|gate_tally|gate_refused|alarms)|door'
        UNION ALL
        SELECT 'column ' || attrelid::regclass || '.' || attname FROM pg_attribute JOIN pg_class c ON c.oid = attrelid
        WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v') AND attname IN ('door', 'told_start', 'told_end')
        ORDER BY 1`
      expect(await lines(server.owner, names)).toEqual([
        'column alarms.told_end',
        'column alarms.told_start',
        'column gate_refused.door',
        'column gate_tally.door',
        'column relay_use.door',
        'column status_gate.door',
        'v alarms',
        'v gate_refused',
        'v gate_tally',
        'v relay_use',
        'v status_decrees',
        'v status_gate',
      ])
    })

    test('keep_history makes, fills and drops partitions of usage_event', async () => {
      const place = async (client: string): Promise<readonly string[]> =>
        lines(server.owner, `SELECT tableoid::regclass::text AS line FROM usage_event WHERE ip = '${client}'`)
      expect([await place('192.0.2.7'), await place('192.0.2.8')]).toEqual([[today], ['usage_event_default']])
      const partitions = (): Promise<readonly string[]> =>
        lines(
          server.owner,
          "SELECT inhrelid::regclass::text AS line FROM pg_inherits WHERE inhparent = 'usage_event'::regclass",
        )
      const keep = (now: Date) => run(authd, 'SELECT keep_history($1::int, $2::timestamptz)', [30, now])
      await keep(LONG_AGO)
      const made = ['01', '02', '03', '04', '05'].map(day => `usage_event_202101${day}`)
      expect(await partitions()).toEqual(expect.arrayContaining([...made, today, 'usage_event_default']))
      expect(await place('192.0.2.8')).toEqual(['usage_event_20210102'])
      await keep(minute)
      expect([await place('192.0.2.7'), await place('192.0.2.8')]).toEqual([[today], []])
      const kept = await partitions()
      expect(kept).toEqual(expect.arrayContaining([today, 'usage_event_default']))
      expect(kept.filter(name => made.includes(name))).toEqual([])
      // A partition has the indexes and the constraint of its table.
      expect(
        await lines(
          server.owner,
          `SELECT indexrelid::regclass::text AS line FROM pg_index WHERE indrelid = '${today}'::regclass
           UNION ALL SELECT conname FROM pg_constraint WHERE conrelid = '${today}'::regclass AND contype = 'c' ORDER BY 1`,
        ),
      ).toEqual(['usage_event_service_check', `${today}_at_idx`, `${today}_ip_at_idx`].toSorted())
    })

    test('authd of schema 18 stores with its prepared statements, and a new authd adds to the same rows', async () => {
      const later = new Date(minute.getTime() + 1000)
      await recordUsageEvents(authd, later, '192.0.2.9', 'policy')
      await recordTallies(authd, minute, [10, 20, 30, 40])
      const writer = createGrantWriter(server.open('pop3authd'), grantPolicy(), { host: HOST })
      const tally: RelayTally = {
        at: minute.getTime() / 1000,
        service: 'gate',
        counts: { relayed: 100, refused: 200, undecided: 300, never: 400 },
        recent: [ip('192.0.2.3')],
      }
      await writer.recordTallies([tally])
      await writer.recordUsageEvents([{ ip: ip('192.0.2.10'), service: 'gate', at: later }])
      // Without the host, as schema 17 stored a use.
      await authd.script(
        `INSERT INTO relay_use (at, ip, door) VALUES ('${later.toISOString()}', '192.0.2.11', 'socketmap')`,
      )
      const reader = server.open('pop3authd')
      expect((await relaysSince(reader, EPOCH)).map(row => `${row.ip} ${row.detail} ${row.host}`).toSorted()).toEqual([
        '192.0.2.10 gate old.example.org',
        '192.0.2.11 socketmap null',
        '192.0.2.7 gate old.example.org',
        '192.0.2.9 policy old.example.org',
      ])
      const sums = { host: HOST, service: 'gate', relayed: 111, refused: 222, undecided: 333, never: 444 }
      expect(await talliesSince(reader, EPOCH)).toEqual([{ at: minute, ...sums }])
      expect((await refusedSince(reader, EPOCH)).map(row => `${row.ip} ${row.detail}`)).toEqual(['192.0.2.3 gate'])
    })

    test('the statements of schema 18 read what those of this release read', async () => {
      const client = ip('192.0.2.9')
      await run(
        authd,
        `INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
         VALUES ($1::timestamptz, '192.0.2.9', '192.0.2.9', 'popup', 'pass', true, 'ann', '', $1::timestamptz + interval '1 day')`,
        [minute],
      )
      const reader = server.open('pop3authd')
      expect(await run(authd, former.RELAYS, [EPOCH])).toEqual(await relaysSince(reader, EPOCH))
      expect(await run(authd, former.REFUSED, [EPOCH])).toEqual(await refusedSince(reader, EPOCH))
      const [tally, ...others] = await run(authd, former.TALLIES, [EPOCH])
      expect([tally, others]).toEqual([expect.objectContaining({ at: minute, service: 'gate', relayed: '111' }), []])
      expect(await run(authd, former.REPORT, [1])).toMatchObject([{ login: 'ann', relays: '1' }])
      expect(await reportUsage(reader, 1)).toMatchObject([{ login: 'ann', relays: 1 }])
      const { lastRelay } = await createGrantAdmin(reader, grantPolicy()).explain(client, null)
      expect(lastRelay).toMatchObject({ service: 'policy', host: HOST })
      expect(await run(authd, former.LAST_RELAY, ['192.0.2.9', new Date()])).toEqual([lastRelay])
    })

    test('the status page of schema 18 shows what that of this release shows', async () => {
      const page = server.open('authstatus')
      const feed = createStatusFeed(page)
      await server.owner.script(
        "INSERT INTO grants (ip, until, daemon) VALUES ('192.0.2.9', 'infinity', 'x'); INSERT INTO allowances (net, reason, owner) VALUES ('198.51.100.0/24', '', '')",
      )
      const totals = { grants: '1', allowances: '1', blocks: '0', schema: LATEST }
      expect(await run(page, former.TOTALS)).toMatchObject([totals])
      expect(await feed.totals()).toMatchObject({ grants: 1, allowances: 1, blocks: 0, schema: LATEST })
      expect(await run(page, former.EVENTS, [3600, 100])).toEqual(await feed.lastEvents(3600, 100))
      expect(await run(page, former.LAST_HEARD, [3600, 100])).toEqual(await feed.lastByDaemon(3600, 100))
      const numbers = (rows: readonly unknown[]): unknown =>
        rows.map(row => v.parse(v.record(v.string(), v.pipe(v.unknown(), v.transform(String))), row))
      const now = new Date()
      const services = await feed.services(3600)
      expect(services.map(({ service, closed }) => `${service} ${closed}`).toSorted()).toEqual([
        'gate 999',
        'policy 0',
        'socketmap 0',
      ])
      expect(await run(page, former.SERVICES, [3600])).toEqual(
        services.map(row => ({
          ...row,
          relayed: `${row.relayed}`,
          closed: `${row.closed}`,
          undecided: `${row.undecided}`,
        })),
      )
      const hours = await feed.countEvents(new Date(now.getTime() - 3_600_000), now, 3600)
      expect(hours.reduce((sum, { closed }) => sum + closed, 0)).toBe(999)
      expect(numbers(await run(page, former.COUNTS, [new Date(now.getTime() - 3_600_000), now, 3600]))).toEqual(
        numbers(hours),
      )
    })

    test('hosts of both schemas claim each start and each end of an alarm once', async () => {
      const alarms = new Alarms(server.open('pop3authd'))
      const subjects = Array.from({ length: 50 }, (_, n) => `subject ${n}`)
      const now = new Date()
      await run(authd, former.REMEMBER_HOURS, [now])
      await look(authd, ['claimed', 'waiting', ...subjects], now)
      await alarms.look(LIMITS, { now, off: OFF })
      expect(await run(authd, former.COUNT_OPEN)).toEqual([{ rule: 'certificate_end', count: '52' }])
      expect(await alarms.countOpen()).toEqual(new Map([['certificate_end', 52]]))
      const subjectOf = v.object({ subject: v.string() })
      const claim = async (statement: string): Promise<readonly string[]> =>
        (await run(authd, statement, [now])).map(row => v.parse(subjectOf, row).subject)
      /** All of one kind, with both schemas at the same time. */
      const claimAll = async (state: 'start' | 'end'): Promise<readonly string[]> => {
        const all: string[] = []
        for (;;) {
          const [ofOld, ofNew] = await Promise.all([
            claim(state === 'start' ? former.TAKE_STARTS : former.TAKE_ENDS),
            alarms.take(now),
          ])
          const round = [...ofOld, ...ofNew.filter(change => change.state === state).map(({ alarm }) => alarm.subject)]
          all.push(...round)
          if (round.length === 0) return all.toSorted()
        }
      }
      expect(await claimAll('start')).toEqual(['waiting', ...subjects].toSorted())
      const [first] = await alarms.list(1)
      if (first === undefined) throw new Error('no alarm')
      await run(authd, former.GIVE_BACK_START, [first.id])
      expect(await claimAll('start')).toEqual([first.subject])

      await look(authd, [], new Date(now.getTime() + 31 * 60_000))
      expect(await claimAll('end')).toEqual(['claimed', 'waiting', ...subjects].toSorted())
      await run(authd, former.GIVE_BACK_END, [first.id])
      expect(await claimAll('end')).toEqual([first.subject])
      expect(await run(authd, former.LIST, [1])).toHaveLength(52)
      await run(authd, former.FORGET, [new Date(now.getTime() + 91 * 86_400_000)])
      expect(await alarms.list(1)).toEqual([])
    })

    test('rights of the views: the gate reads none, the histories stay as they are', async () => {
      for (const text of [
        'TABLE relay_use',
        'TABLE gate_tally',
        'TABLE gate_refused',
        'TABLE alarms',
        'TABLE status_gate',
      ])
        await expect(server.open('authwrap').script(text), text).rejects.toMatchObject({ code: '42501' })
      for (const text of ["UPDATE relay_use SET door = 'x'", 'DELETE FROM relay_use', 'DELETE FROM gate_tally'])
        await expect(authd.script(text), text).rejects.toMatchObject({ code: '42501' })
    })
  })
})

test('authd of schema 18 stores while the schema changes, and loses nothing', async () => {
  const server = await createTestDatabase({ empty: true })
  try {
    await migrateTo18(server.owner)
    const minute = new Date(Math.floor(Date.now() / 60_000) * 60_000 - 120_000)
    let stored = 0
    const store = async (authd: Database): Promise<void> => {
      await recordUsageEvents(authd, minute, '192.0.2.7')
      await recordTallies(authd, minute, [1, 0, 0, 0])
      stored += 1
    }
    const daemons = Array.from({ length: 4 }, () => server.open('pop3authd', { max: 1, planOnce: true }))
    // A daemon that runs has prepared its statements.
    for (const authd of daemons) await store(authd)
    let migrated = false
    const storing = daemons.map(async authd => {
      while (!migrated) await store(authd)
      await store(authd)
    })
    const migration = migrate(server.owner, SQL).finally(() => {
      migrated = true
    })
    const [result] = await Promise.all([migration, ...storing])
    expect(result).toEqual({ from: 18, to: LATEST })
    expect(stored).toBeGreaterThanOrEqual(8)
    expect(await lines(server.owner, 'SELECT count(*)::text AS line FROM usage_event')).toEqual([`${stored}`])
    expect(await lines(server.owner, 'SELECT relayed::text AS line FROM gate_decisions')).toEqual([`${stored}`])
  } finally {
    await server.remove()
  }
})

test('a keep_history that waits for the migration fails once, changes nothing, and succeeds the next time', async () => {
  const server = await createTestDatabase({ empty: true })
  try {
    await migrateTo18(server.owner)
    const authd = server.open('pop3authd', { max: 1, planOnce: true })
    await recordUsageEvents(authd, LONG_AGO, '192.0.2.8')
    const keep = () => run(authd, 'SELECT keep_history(30, $1::timestamptz)', [LONG_AGO])
    const observer = server.open('pop3authd')
    const waiting = await server.owner.transaction(async session => {
      for (const { version, text } of await readMigrations(SQL)) if (version > 18) await session.script(text)
      const outcome = keep().catch((error: unknown) => error)
      await eventually('keep_history waits', async () => {
        const text = `SELECT pid::text AS line FROM pg_locks JOIN pg_database d ON d.oid = database
          WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()`
        return (await lines(observer, text)).length === 1
      })
      return { outcome }
    })
    expect(await waiting.outcome).toMatchObject({ code: '42P01' }) // undefined_table
    const places = 'SELECT tableoid::regclass::text AS line FROM usage_event'
    expect(await lines(server.owner, places)).toEqual(['usage_event_default'])
    await keep()
    expect(await lines(server.owner, places)).toEqual(['usage_event_20210102'])
  } finally {
    await server.remove()
  }
})

const utc = (time: Date): string => time.toISOString().slice(0, 10)
