import { readFileSync, rmSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { migrate } from '../../src/database/migrate.ts'
import { eventually } from '../harness/eventually.ts'
import { freePort } from '../harness/free-port.ts'
import { SmallDisk } from '../harness/hosts/small-disk.ts'
import { Pop3Client } from '../harness/pop3/pop3-client.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { Demo } from '../harness/processes/demo.ts'
import { TcpRelay } from '../harness/processes/tcp-relay.ts'
import { describeWith, ROOT } from '../harness/runner/describe-with.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { Site } from './site.ts'

const [FIRST, SECOND] = ['127.0.0.2', '127.0.0.3']
/** Longer than every time limit for the database. */
const SLOW_MS = 4000
const MINUTE = 60_000
const BREATH_MS = 50
/** GRANT_WAIT is one second; the margin is for a loaded machine. */
const LOGIN_MS = 6000
const DISK_MB = 140
/** The size of a new demo, and a margin. */
const EMBEDDED_DISK_MB = 190
/** More than the WAL that PostgreSQL keeps ready (min_wal_size). */
const LOG_SEGMENTS = 16
/** Half a segment of the WAL. Nothing else on this disk needs space. */
const BALLAST = "SELECT pg_logical_emit_message(true, 'ballast', repeat('x', 8000000))"

const ownerOf = (cluster: PostgresCluster): Database =>
  openDatabase({
    hosts: [{ host: '127.0.0.1', port: cluster.port }],
    database: 'postgres',
    user: 'postgres',
    password: { reveal: () => PostgresCluster.password },
    applicationName: 'tests',
    max: 1,
  })

async function prepare(cluster: PostgresCluster): Promise<void> {
  const owner = ownerOf(cluster)
  await migrate(owner, new URL('../../sql/', import.meta.url).pathname)
  for (const role of ROLES) await owner.script(`ALTER ROLE ${role} PASSWORD 'of ${role}'`)
  await owner.close()
}

async function administer(cluster: PostgresCluster, ...statements: readonly string[]): Promise<void> {
  const owner = ownerOf(cluster)
  for (const statement of statements) await owner.script(statement)
  await owner.close()
}

/** A site that connects to its database at these addresses. */
const siteWith = (hosts: readonly string[], port: number): Promise<Site> =>
  Site.start(() => ({
    database: {
      dbhost: hosts.join(','),
      dbport: port,
      dbname: 'postgres',
      dbpass: 'of pop3authd',
      wrap_dbpass: 'of authwrap',
    },
  }))

const ROLES = ['pop3authd', 'authwrap']
// A process that has just ended itself makes a warning, which `script` would report as an unknown
// outcome.
const END_ALL =
  "SET client_min_messages = error; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename IN ('pop3authd', 'authwrap')"

describeWith([DEBIAN_POSTGRES], 'the database', () => {
  let cluster: PostgresCluster
  let relay: TcpRelay
  let site: Site
  beforeAll(async () => {
    cluster = await PostgresCluster.start()
    await prepare(cluster)
    relay = await TcpRelay.open({ host: FIRST, port: 0 }, cluster.port)
    site = await siteWith([FIRST], relay.port)
  })
  beforeEach(() => site.stack.showLogsOnFailure())
  afterAll(async () => {
    await site?.stop()
    relay?.close()
    await cluster?.remove()
  })

  test('is stopped and started', () =>
    site.survives(
      () => cluster.stop('fast'),
      () => cluster.start(),
    ))
  test('is killed and started', () =>
    site.survives(
      () => cluster.stop('kill'),
      () => cluster.start(),
    ))
  test('is down for a minute while clients log in', { timeout: 300_000 }, async () => {
    const people: string[] = []
    await site.survives(
      () => cluster.stop('kill'),
      async () => {
        for (const end = performance.now() + MINUTE; performance.now() < end; ) {
          const person = site.newcomer()
          expect(await site.login(person)).toBeLessThan(LOGIN_MS)
          people.push(person)
          // authd keeps 10,000 addresses, which is more than come in that time.
          await pause(BREATH_MS)
        }
        await cluster.start()
      },
    )
    for (const person of people) await eventually(`the login of ${person} is stored`, () => site.mayRelay(person))
  })
  test('is slow', () =>
    site.survives(
      async () => {
        relay.delay = SLOW_MS
      },
      async () => {
        relay.delay = 0
      },
    ))
  test('is read-only', () =>
    site.survives(
      () =>
        administer(cluster, ...ROLES.map(role => `ALTER ROLE ${role} SET default_transaction_read_only = on`), END_ALL),
      () =>
        administer(cluster, ...ROLES.map(role => `ALTER ROLE ${role} RESET default_transaction_read_only`), END_ALL),
    ))
})

describeWith([DEBIAN_POSTGRES], 'two databases', () => {
  let primary: PostgresCluster
  let standby: PostgresCluster
  let relays: readonly TcpRelay[]
  let site: Site
  beforeAll(async () => {
    primary = await PostgresCluster.start()
    await prepare(primary)
    standby = await PostgresCluster.start({ replicaOf: primary })
    // A login with the answer `committed` is on both databases.
    await administer(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'", 'SELECT pg_reload_conf()')
    const port = await freePort()
    relays = [
      await TcpRelay.open({ host: FIRST, port }, primary.port),
      await TcpRelay.open({ host: SECOND, port }, standby.port),
    ]
    site = await siteWith([FIRST, SECOND], port)
  })
  beforeEach(() => site.stack.showLogsOnFailure())
  afterAll(async () => {
    await site?.stop()
    for (const relay of relays ?? []) relay.close()
    await standby?.remove()
    await primary?.remove()
  })

  test('fails over: the primary is killed, and the standby replaces it', () =>
    site.survives(
      () => primary.stop('kill'),
      async () => {
        standby.promote()
        await administer(standby, 'ALTER SYSTEM RESET synchronous_standby_names', 'SELECT pg_reload_conf()')
      },
    ))
})

describeWith([DEBIAN_POSTGRES, ROOT], 'a database on a full disk', () => {
  let disk: SmallDisk
  let cluster: PostgresCluster
  let site: Site
  beforeAll(async () => {
    disk = new SmallDisk(DISK_MB)
    const path = disk.path
    cluster = await PostgresCluster.start({
      directory: { path, remove: () => rmSync(`${path}/data`, { recursive: true, force: true }) },
      // A WAL with free space reuses its segments; with a switch it needs a new segment.
      settings: { fsync: 'off', min_wal_size: '32MB', max_wal_size: '1GB' },
    })
    await prepare(cluster)
    site = await siteWith(['127.0.0.1'], cluster.port)
  })
  beforeEach(() => site.stack.showLogsOnFailure())
  afterAll(async () => {
    await site?.stop()
    await cluster?.remove()
    disk?.remove()
  })

  test('stores no login until there is free space, and loses none', () =>
    site.survives(
      async () => {
        disk.fill()
        // Fills until PostgreSQL needs a new segment of the WAL and cannot create it.
        for (let round = 0; round < LOG_SEGMENTS; round++) await administer(cluster, BALLAST).catch(() => {})
      },
      async () => {
        disk.empty()
        // PostgreSQL may have ended because the WAL had no space; an administrator starts it again.
        await cluster.stop('kill')
        await cluster.start()
      },
    ))
})

describeWith([ROOT], 'the embedded database on a full disk', () => {
  let disk: SmallDisk
  let demo: Demo
  beforeAll(async () => {
    disk = new SmallDisk(EMBEDDED_DISK_MB)
    demo = new Demo(`${disk.path}/demo`)
    await demo.ready()
  })
  afterAll(async () => {
    await demo?.program.stop(30_000)
    await demo?.ended()
    disk?.remove()
  })

  const logIn = async (): Promise<void> => {
    const client = new Pop3Client(connect(demo.port('popup'), '127.0.0.1'))
    expect(await client.line()).toMatch(/^\+OK/)
    expect(await client.say('USER demo')).toMatch(/^\+OK/)
    expect(await client.say('PASS demo')).toMatch(/^\+OK/)
    expect(await client.say('QUIT')).toMatch(/^\+OK/)
  }
  const codeFor = async (recipient: string): Promise<number> => {
    const smtp = SmtpConversation.over(connect(demo.port('wrap'), '127.0.0.1'))
    const { code } = await smtp.askFor(recipient)
    await smtp.quit()
    return code
  }
  const hasLogged = (event: RegExp): boolean => demo.program.lines.some(line => event.test(line))

  test('PostgreSQL ends on a full disk; POP3 and local mail continue, the relay is closed; with free space it opens without a manual step', async () => {
    const { directory } = demo
    const state = `${directory}/state`
    const superuser = readFileSync(`${state}/postgresql/superuser.secret`, 'utf8').trim()
    const owner = openDatabase({
      hosts: [{ host: readFileSync(`${state}/database-socket`, 'utf8').trim(), port: 5432 }],
      database: 'postgres',
      user: 'postgres',
      password: { reveal: () => superuser },
      applicationName: 'tests',
      max: 1,
    })
    disk.fill()
    // Fills until PostgreSQL needs a new segment of the WAL and cannot create it.
    for (let round = 0; round < LOG_SEGMENTS; round++) await owner.script(BALLAST).catch(() => {})
    await owner.close()
    await eventually(
      'auth-relay up cannot start the database again',
      () => hasLogged(/event=database_restart_failed/),
      MINUTE,
    )
    await logIn()
    expect(await codeFor('demo@demo.example')).toBe(250)
    expect(await codeFor('somebody@elsewhere.example')).toBe(553)
    disk.empty()
    await eventually(
      'auth-relay up has started the database again',
      () => hasLogged(/event=database_restarted/),
      MINUTE,
    )
    await eventually('the login counts', async () => (await codeFor('somebody@elsewhere.example')) === 250, MINUTE)
  })
})
