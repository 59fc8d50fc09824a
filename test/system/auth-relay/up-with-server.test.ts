import { once } from 'node:events'
import { appendFileSync, chownSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { openDatabase } from '../../../src/database/database.ts'
import { freePort } from '../../harness/free-port.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../../harness/postgres/postgres-cluster.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { TcpRelay } from '../../harness/processes/tcp-relay.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'
import { commandOf, TEST_IDS } from '../../harness/stack.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

describeWith([DEBIAN_POSTGRES], 'a site with its own PostgreSQL server, from init to show', () => {
  const { path, remove } = temporaryDirectory()
  const config = `${path}/auth-relay.toml`
  let cluster: PostgresCluster
  let env: Record<string, string>

  beforeAll(async () => {
    cluster = await PostgresCluster.start()
    const server = openDatabase({
      hosts: [{ host: '127.0.0.1', port: cluster.port }],
      database: 'postgres',
      user: 'postgres',
      password: { reveal: () => PostgresCluster.password },
      applicationName: 'tests',
      max: 1,
    })
    await server.script('CREATE DATABASE pop3authd')
    await server.close()
    writeFileSync(`${path}/owner.pass`, `${PostgresCluster.password}\n`, { mode: 0o600 })
    env = {
      DBPORT: String(cluster.port),
      RUN_DIR: `${path}/run`,
      STATE_DIR: `${path}/state`,
      SYSLOG: '0',
      POPUP_LISTEN: '127.0.0.1:0',
      POPUP_LOGIN_USER: String(TEST_IDS.login),
      POPUP_PASSWD_FILE: `${path}/passwd`,
      SSLWRAP_USER: String(TEST_IDS.tls),
      SSLWRAP_CERT: `${path}/tls.crt`,
      SSLWRAP_KEY: `${path}/tls.key`,
      AUTHD_USER: String(TEST_IDS.authd),
      AUTHD_SOCKET: `${path}/run/authd.sock`,
      AUTHD_USAGE_SOCKET: '',
      GRANT_LOOPBACK: '1',
    }
  })
  afterAll(async () => {
    await cluster.remove()
    remove()
  })

  const say = async (...words: readonly string[]) => {
    const program = await run(commandOf('auth-relay', ...words, '--config', config), { env })
    return { status: program.ending?.code, lines: program.lines }
  }

  test('init writes a file that only its owner can read; a second one keeps its passwords', async () => {
    expect((await say('init', '--dbhost', '127.0.0.1')).status).toBe(0)
    expect(statSync(config).mode & 0o777).toBe(0o600)
    expect(statSync(`${path}/sslhack.pass`).mode & 0o777).toBe(0o600)
    const passwords = (): readonly string[] => readFileSync(config, 'utf8').match(/^\w*dbpass = .*$/gm) ?? []
    const first = passwords()
    expect(first).toHaveLength(3)
    expect((await say('init')).lines).toContain(`The former text is in ${config}.old; its settings stay.`)
    expect(passwords()).toEqual(first)
    expect(statSync(config).mode & 0o777).toBe(0o600)
  })

  /** Runs a script as the superuser. */
  const script = async (text: string): Promise<void> => {
    const hosts = [{ host: '127.0.0.1', port: cluster.port }]
    const password = { reveal: () => PostgresCluster.password }
    const server = openDatabase({
      ...{ hosts, database: 'pop3authd', user: 'postgres', password },
      ...{ applicationName: 'tests', max: 1 },
    })
    await server.script(text)
    await server.close()
  }

  test('no program starts before the administrator has confirmed the file', async () => {
    expect((await say('up')).lines).toEqual([expect.stringContaining('set configured = true')])
    writeFileSync(config, readFileSync(config, 'utf8').replace('configured = false', 'configured = true'))
    appendFileSync(config, '\n[[sslwrap.listener]]\nlisten = "127.0.0.1:0"\nbackend = "127.0.0.1:1"\n')
    writeFileSync(`${path}/passwd`, '', { mode: 0o600 })
    const again = await say('init')
    expect(again).toEqual({ status: 100, lines: [expect.stringContaining(`${config} exists and is kept`)] })
    const early = await say('up')
    expect(early.status).toBe(111)
    expect(early.lines).toEqual([
      expect.stringMatching(
        /^auth-relay: no database: .*: make the role authwrap and its password with auth-relay migrate/,
      ),
    ])
  })

  test('migrate makes tables and roles as the owner, and has nothing to do the second time', async () => {
    const owner = ['--user', 'postgres', '--password-file', `${path}/owner.pass`]
    expect(await say('migrate', ...owner)).toMatchObject({
      status: 0,
      lines: [expect.stringMatching(/^Migrated from schema 0 to \d+\.$/)],
    })
    expect((await say('migrate', ...owner)).lines).toEqual([expect.stringMatching(/^The database is up to date/)])
  })

  test('migrate --check compares the schema by the password of one role', async () => {
    const compare = async (more: Record<string, string> = {}) => {
      const gate = { DBPASS_FILE: `${path}/none`, STATUS_DBPASS_FILE: `${path}/none` }
      const words = commandOf('auth-relay', 'migrate', '--check', '--config', config)
      const { ending, lines } = await run(words, { env: { ...env, ...gate, ...more } })
      return { status: ending?.code, line: lines.join() }
    }
    expect(await compare()).toEqual({
      status: 0,
      line: expect.stringMatching(/^The database has schema (\d+), this version knows \1\.$/),
    })
    const newest = Number(/\d+/.exec((await compare()).line)?.[0])
    await script(`DELETE FROM schema_version WHERE v = ${newest}`)
    expect(await compare()).toEqual({
      status: 1,
      line: `The database has schema ${newest - 1}, this version needs ${newest}.`,
    })
    await script(`INSERT INTO schema_version VALUES (${newest})`)
    expect((await compare({ DBPORT: `${await freePort()}` })).status).toBe(111)
    const unused = { POPUP_LISTEN: '', WRAP_LISTEN: '', WRAP_POLICY_LISTEN: '', DBPORT: `${await freePort()}` }
    expect(await compare(unused)).toEqual({ status: 0, line: expect.stringContaining('no program of this host') })
  })

  test('migrate waits for a database that is not ready, and not longer than its limit', async () => {
    const port = await freePort()
    const words = ['--user', 'postgres', '--password-file', `${path}/owner.pass`, '--config', config, '--wait']
    const early = { env: { ...env, DBPORT: `${port}` } }
    const limited = await run(commandOf('auth-relay', 'migrate', ...words, '1s'), early)
    expect(limited.ending?.code).toBe(111)
    expect(limited.lines).toEqual([expect.stringMatching(/^auth-relay: no database: .*ECONNREFUSED/)])
    const patient = new Program('migrate', commandOf('auth-relay', 'migrate', ...words, '10m'), early)
    const attempts = createServer(socket => socket.destroy()).listen(port, '127.0.0.1')
    await once(attempts, 'connection')
    attempts.close()
    await once(attempts, 'close')
    const relay = await TcpRelay.open({ host: '127.0.0.1', port }, cluster.port)
    expect(await patient.ended).toEqual({ code: 0, signal: null })
    relay.close()
    expect(patient.lines).toEqual([expect.stringMatching(/^The database is up to date/)])
  })

  test('check accepts both roles: one writes, the other reads', async () => {
    const { lines } = await say('check')
    expect(lines.join('\n')).toMatch(/fine {4}database\.dbuser: pop3authd reaches the database/)
    expect(lines.join('\n')).toMatch(/fine {4}database\.wrap_dbuser: authwrap reaches the database/)
    expect(lines.join('\n')).not.toContain(/dbpass = "(.*)"/.exec(readFileSync(config, 'utf8'))?.[1])
  })

  test('up runs on it, a login is granted there, and show lists it', async () => {
    const home = `${path}/ann`
    for (const folder of [home, `${home}/Maildir`, ...['new', 'cur', 'tmp'].map(name => `${home}/Maildir/${name}`)]) {
      mkdirSync(folder)
      chownSync(folder, TEST_IDS.smtpd, TEST_IDS.smtpd)
    }
    const account = ['passwd', 'ann', '--file', `${path}/passwd`, '--uid', String(TEST_IDS.smtpd), '--home', home]
    expect((await run(commandOf('auth-relay', ...account), { input: 'sesame\n' })).ending?.code).toBe(0)
    const up = new Program('up', commandOf('auth-relay', 'up', '--config', config), { env })
    await up.waitForLine(/^auth-relay ready/, 60_000)
    const port = /popup\.listen=\S+:(\d+)/.exec(up.lines.join('\n'))?.[1]
    const curl = await run(['curl', '--silent', '--show-error', '--user', 'ann:sesame', `pop3://127.0.0.1:${port}/`])
    expect(curl.ending?.code).toBe(0)
    expect((await say('show')).lines.join('\n')).toMatch(/\n127\.0\.0\.1 .* ann +popup /)
    expect(await up.stop()).toEqual({ code: 0, signal: null })
  })
})

describeWith([DEBIAN_POSTGRES, ROOT], 'a PostgreSQL of this host with the access rules of Debian', () => {
  const { path, remove } = temporaryDirectory()
  const config = `${path}/auth-relay.toml`
  let cluster: PostgresCluster

  beforeAll(async () => {
    cluster = await PostgresCluster.start({ settings: { unix_socket_directories: '/var/run/postgresql' } })
    cluster.useHba('local all postgres peer\nhost all all 127.0.0.1/32 scram-sha-256\n')
  })
  afterAll(async () => {
    await cluster.remove()
    remove()
  })

  const env = (): Record<string, string> => ({ DBPORT: `${cluster.port}` })
  const say = async (...words: readonly string[]) => {
    const { ending, lines } = await run(commandOf('auth-relay', ...words, '--config', config), { env: env() })
    return { status: ending?.code, lines }
  }

  test('root makes the tables by the commands of INSTALL, without a password of postgres', async () => {
    expect((await say('init', '--dbhost', 'localhost')).status).toBe(0)
    const install = readFileSync(new URL('../../../docs/INSTALL.md', import.meta.url), 'utf8')
    const [, create = '', migrate = ''] =
      /^runuser -u postgres -- (createdb pop3authd)\nauth-relay (migrate --user postgres) /m.exec(install) ?? []
    const account = ['runuser', '-u', 'postgres', '--', ...create.split(' ')]
    const created = await run(account, { env: { PGHOST: '/var/run/postgresql', PGPORT: `${cluster.port}` } })
    expect(created.ending?.code).toBe(0)
    expect(await say(...migrate.split(' '))).toEqual({
      status: 0,
      lines: [expect.stringMatching(/^Migrated from schema 0 to \d+\.$/)],
    })
    const { lines } = await say('check')
    expect(lines.join('\n')).toMatch(/fine {4}database\.dbuser: pop3authd reaches the database/)
  })

  test('the socket directory as the address works too', async () => {
    writeFileSync(config, readFileSync(config, 'utf8').replace(/^dbhost = .*/m, 'dbhost = "/var/run/postgresql"'))
    expect((await say('migrate', '--user', 'postgres')).lines).toEqual([expect.stringMatching(/^The database is up/)])
  })

  test('without a password and without the socket the remedy is the password', async () => {
    cluster.useHba('host all all 127.0.0.1/32 scram-sha-256\n')
    writeFileSync(config, readFileSync(config, 'utf8').replace(/^dbhost = .*/m, 'dbhost = "127.0.0.1,127.0.0.1"'))
    const { status, lines } = await say('migrate', '--user', 'postgres')
    expect(status).toBe(111)
    expect(lines).toEqual([
      expect.stringMatching(/client password must be .*: .* --password-file; .* as root on the host/),
    ])
  })
})
