import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, chownSync, existsSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { checkHost } from '../../src/auth-relay/check/check-host.ts'
import { withDatabase } from '../../src/auth-relay/site-database.ts'
import { formatSettings } from '../../src/auth-relay/text/settings-text.ts'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { listenTo } from '../../src/database/notifications.ts'
import type { Statement } from '../../src/database/statement.ts'
import { inspectRole } from '../../src/grants/database-setup.ts'
import { idsOf } from '../../src/process/privileges.ts'
import { setupCommand } from '../../src/settings/database-remedy.ts'
import { parseSettings } from '../../src/settings/settings.ts'
import { eventually } from '../harness/eventually.ts'
import { freePort } from '../harness/free-port.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { describeWith } from '../harness/runner/describe-with.ts'
import { Stack, TEST_IDS } from '../harness/stack.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const PGBOUNCER = {
  name: 'pgbouncer',
  remedy: 'apt-get install pgbouncer',
  isThere: () => existsSync('/usr/sbin/pgbouncer'),
}

describeWith([DEBIAN_POSTGRES, PGBOUNCER], 'a connection pooler before PostgreSQL', () => {
  let cluster: PostgresCluster
  const directory = temporaryDirectory()
  const poolers: ChildProcess[] = []

  /** Starts a pgbouncer for the test; returns its port. */
  const startPooler = async (...lines: readonly string[]): Promise<number> => {
    const port = await freePort()
    const ini = `${directory.path}/${port}.ini`
    writeFileSync(`${directory.path}/users`, `"postgres" "${PostgresCluster.password}"\n`)
    writeFileSync(
      ini,
      `[databases]
postgres = host=127.0.0.1 port=${cluster.port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = ${directory.path}/users
${lines.join('\n')}
`,
    )
    const isRoot = process.geteuid?.() === 0
    // pgbouncer refuses to run as root.
    const { uid, gid } = isRoot ? idsOf('postgres', 'the test') : { uid: process.getuid?.(), gid: process.getgid?.() }
    if (isRoot && uid !== undefined && gid !== undefined) {
      for (const path of [directory.path, ini, `${directory.path}/users`]) chownSync(path, uid, gid)
      chmodSync(directory.path, 0o700)
    }
    const pooler = spawn('/usr/sbin/pgbouncer', ['-q', ini], { uid, gid, stdio: 'ignore' })
    poolers.push(pooler)
    await eventually(
      'pgbouncer listens',
      () =>
        new Promise<boolean>(resolve => {
          const probe = connect(port, '127.0.0.1', () => {
            probe.destroy()
            resolve(true)
          }).once('error', () => resolve(false))
        }),
    )
    return port
  }

  const optionsFor = (port: number) => ({
    hosts: [{ host: '127.0.0.1', port }],
    database: 'postgres',
    user: 'postgres',
    password: { reveal: () => PostgresCluster.password },
    applicationName: 'tests',
  })
  const pooledOf = async (database: Database): Promise<boolean | undefined> => {
    await database.script('SELECT 1')
    const state = database.state()
    await database.close()
    return state.state === 'up' ? state.pooled : undefined
  }

  beforeAll(async () => {
    cluster = await PostgresCluster.start()
  })
  afterAll(async () => {
    for (const pooler of poolers) {
      const closed = once(pooler, 'close')
      pooler.kill('SIGTERM')
      await closed
    }
    await cluster?.remove()
    directory.remove()
  })

  test('is recognised, and PostgreSQL itself is not mistaken for one', async () => {
    const port = await startPooler('pool_mode = session')
    expect(await pooledOf(openDatabase(optionsFor(port)))).toBe(true)
    expect(await pooledOf(openDatabase(optionsFor(cluster.port)))).toBe(false)
  })

  test('check advises about a pooler, and has no finding about PostgreSQL itself', async () => {
    const port = await startPooler('pool_mode = session', 'ignore_startup_parameters = statement_timeout')
    // check finds the migrations beside the running program.
    const [, program = ''] = process.argv
    process.argv[1] = new URL('../../src/auth-relay/main.ts', import.meta.url).pathname
    const adviceAt = async (dbport: number): Promise<readonly string[]> => {
      const database = { dbhost: '127.0.0.1', dbport, dbname: 'postgres', dbuser: 'postgres' }
      const site = { database: { ...database, dbpass: PostgresCluster.password }, popup: { listen: [] } }
      const { settings } = parseSettings(formatSettings(site, { head: [], withDefaults: false }), 'x.toml')
      return (await checkHost(settings)).flatMap(({ verdict, about, text }) =>
        about === 'database.dbhost' ? [`${verdict}: ${text}`] : [],
      )
    }
    try {
      expect(await adviceAt(port)).toEqual([
        expect.stringMatching(/^advice: a connection pooler in session mode answers for PostgreSQL/),
      ])
      expect(await adviceAt(cluster.port)).toEqual([])
    } finally {
      process.argv[1] = program
    }
  })

  test('in session mode works as Debian configures it: timeouts, named statements, and NOTIFY', async () => {
    const port = await startPooler('pool_mode = session')
    const database = openDatabase({ ...optionsFor(port), statementTimeoutMs: 4321, planOnce: true, max: 2 })
    const named: Statement<{ timeout: string }> = {
      name: 'timeout',
      text: "SELECT current_setting('statement_timeout') AS timeout",
      row: v.object({ timeout: v.string() }),
    }
    for (let n = 0; n < 20; n++) expect((await database.query(named)).rows).toEqual([{ timeout: '4321ms' }])
    let received = 0
    const listener = listenTo(optionsFor(port), 'of_tests', () => {
      received += 1
    })
    await eventually('LISTEN is answered', () => received > 0)
    const before = received
    await database.script('NOTIFY of_tests')
    await eventually('a notification is received', () => received > before)
    await listener.close()
    await database.close()
  })

  test('in session mode with one server process is not mistaken for transaction mode', async () => {
    const port = await startPooler('pool_mode = session', 'default_pool_size = 1')
    expect(await pooledOf(openDatabase({ ...optionsFor(port), max: 1, connectTimeoutMs: 500 }))).toBe(true)
  })

  test.each(['transaction', 'statement'])(
    'in the mode for %ss is refused, and the error names the setting of the pooler',
    async mode => {
      const port = await startPooler(`pool_mode = ${mode}`, 'ignore_startup_parameters = statement_timeout')
      await expect(withDatabase(optionsFor(port), inspectRole)).rejects.toThrow(
        /^no database: .*: set pool_mode = session in the pooler at 127\.0\.0\.1:\d+, or connect to PostgreSQL directly$/,
      )
      const database = openDatabase(optionsFor(port))
      await eventually('the state names pool_mode', () => {
        const state = database.state()
        return state.state === 'down' && state.reason.includes('pool_mode')
      })
      await database.close()
    },
  )

  test('in the mode for transactions: authd logs the remedy, and check has the fault', async () => {
    const port = await startPooler('pool_mode = transaction', 'ignore_startup_parameters = statement_timeout')
    const access = { dbhost: '127.0.0.1', dbport: port, dbname: 'postgres', dbuser: 'postgres' }
    const database = { ...access, dbpass: PostgresCluster.password }
    const stack = new Stack({ database, authd: { user: `${TEST_IDS.authd}` } })
    const authd = stack.launch('authd')
    const line = await authd.waitForLine(/event=database_unavailable /)
    expect(line).toMatch(
      / remedy="set pool_mode = session in the pooler at 127\.0\.0\.1:\d+, or connect to PostgreSQL directly; /,
    )
    await stack.stop()
    const site = formatSettings({ database, popup: { listen: [] } }, { head: [], withDefaults: false })
    const findings = await checkHost(parseSettings(site, 'x.toml').settings)
    expect(findings.map(({ text, remedy }) => `${text}: ${remedy}`).join('\n')).toContain(
      'set pool_mode = session in the pooler',
    )
  })

  describe('each kind of refusal has its own remedy', () => {
    test.each([
      [{ password: { reveal: () => 'guessed' } }, /: make the role postgres and its password with auth-relay migrate/],
      [{ user: 'nosuchrole' }, /: make the role nosuchrole and its password with auth-relay migrate/],
      [{ database: 'nosuchdb' }, /: create it with createdb, then run auth-relay migrate/],
      [{ hosts: [{ host: '127.0.0.1', port: 1 }] }, /: start PostgreSQL at 127\.0\.0\.1:1, or change/],
    ])('%j', async (change, message) => {
      await expect(withDatabase({ ...optionsFor(cluster.port), ...change }, inspectRole)).rejects.toThrow(message)
    })
  })
})

test('the Debian package has a separate command for a server on the same host, and for no other server', () => {
  const packaged = new URL(import.meta.url).pathname
  const name = 'pooler.test.ts'
  const commandFor = (host: string, installed = packaged) => setupCommand([{ host, port: 5432 }], 'by hand', installed)
  expect([commandFor('localhost'), commandFor('/var/run/postgresql')]).toEqual([name, name])
  expect([commandFor('db1.example.org'), commandFor('localhost', '/nonexistent/command')]).toEqual([
    'by hand',
    'by hand',
  ])
  const several = ['localhost', 'db2.example.org'].map(host => ({ host, port: 5432 }))
  expect(setupCommand(several, 'by hand', packaged)).toBe('by hand')
})
