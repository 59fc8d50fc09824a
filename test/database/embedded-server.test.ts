import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { connect, type Socket } from 'node:net'
import { createInterface } from 'node:readline'
import * as v from 'valibot'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { messageOf } from '../../src/base/errors.ts'
import { openDatabase } from '../../src/database/database.ts'
import { type EmbeddedServer, startEmbeddedServer } from '../../src/database/embedded-server.ts'
import { EmbeddedServerFault } from '../../src/database/errors.ts'
import { identityOf } from '../../src/database/server-account.ts'
import { ROLES, reserveForWriter, setRolePassword } from '../../src/grants/database-setup.ts'
import { idsOf } from '../../src/process/privileges.ts'
import { eventually } from '../harness/eventually.ts'
import { giveCluster } from '../harness/postgres/embedded-cluster.ts'
import { testServerAccount } from '../harness/postgres/server-account.ts'
import { describeWith, ROOT } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const lines: string[] = []
const keep = (event: string, fields: object = {}): void => {
  lines.push(`${event} ${JSON.stringify(fields)}`)
}
const log = { debug: keep, info: keep, warn: keep, error: keep }
const settings = { fsync: 'off' }

let directory: ReturnType<typeof temporaryDirectory>
const running: EmbeddedServer[] = []
const start = async (stateDir = directory.path): Promise<EmbeddedServer> => {
  const server = await startEmbeddedServer({ stateDir, log, settings, account: testServerAccount })
  running.push(server)
  return server
}
beforeEach(() => {
  lines.length = 0
  directory = temporaryDirectory()
})
afterEach(async () => {
  for (const server of running.splice(0)) await server.stop()
  directory.remove()
})

/** A start that finds the cluster of an earlier one. */
const startAgain = (): Promise<EmbeddedServer> => {
  giveCluster(directory.path)
  return start()
}

const run = async (server: EmbeddedServer, script: string): Promise<void> => {
  const database = openDatabase({ ...server.connection, applicationName: 'tests' })
  try {
    await database.script(script)
  } finally {
    await database.close()
  }
}
/** The first message of a client (PostgreSQL, "Message Formats"). The client never sends more. */
function startupMessage(user: string): Buffer {
  const text = Buffer.from(`user\0${user}\0database\0postgres\0\0`)
  const head = Buffer.alloc(8)
  head.writeInt32BE(8 + text.length, 0)
  head.writeInt32BE(196_608, 4)
  return Buffer.concat([head, text])
}

/** Fulfilled with the message of a query that failed. */
const refusal = async (message: Promise<string>): Promise<string> => {
  const text = await message
  if (text === '') throw new Error('the query did not fail')
  return text
}
const hasEnded = async (pid: number): Promise<boolean> => (await identityOf(pid)) === undefined
const base = (): string => `${directory.path}/postgresql`

describe('the embedded server', () => {
  test('keeps its data over stop and start, creates them once, leaves nothing behind', async () => {
    const first = await start()
    const created = () => statSync(`${base()}/data/PG_VERSION`).birthtimeMs
    const firstCreated = created()
    await run(first, "CREATE TABLE kept (a text); INSERT INTO kept VALUES ('still there')")
    const { pid } = first
    await first.stop()
    expect(await hasEnded(pid)).toBe(true)
    expect(readdirSync(base()).sort()).toEqual([
      'data',
      'owner.pid',
      expect.stringContaining('program-'),
      'superuser.secret',
    ])
    const second = await start()
    expect(created()).toBe(firstCreated)
    await run(second, 'SELECT 1 / count(*) FROM kept')
  })

  test('does not listen on the network, and refuses a connection without the password', async () => {
    const server = await startAgain()
    await expect(run(server, "SELECT 1 / (current_setting('listen_addresses') = '')::int")).resolves.toBeUndefined()
    const wrongPassword = openDatabase({
      ...server.connection,
      password: { reveal: () => 'guessed' },
      applicationName: 'tests',
    })
    await expect(wrongPassword.script('SELECT 1')).rejects.toThrow('password authentication failed')
    await wrongPassword.close()
    expect(statSync(`${base()}/superuser.secret`).mode & 0o777).toBe(0o600)
    expect(statSync(`${base()}/data`).mode & 0o777).toBe(0o700)
    expect(lines.join('\n')).not.toContain(readFileSync(`${base()}/superuser.secret`, 'utf8').trim())
  })

  test('is started again after a kill, and has the committed data', async () => {
    const server = await startAgain()
    await run(server, 'CREATE TABLE kept (a int)')
    const { pid } = server
    process.kill(pid, 'SIGKILL')
    await eventually(
      'the server runs again',
      () => server.pid !== pid && server.pid !== 0 && lines.some(line => line.startsWith('database_restarted')),
    )
    await run(server, 'SELECT count(*) FROM kept')
  })

  describe('an account that may connect to the socket', () => {
    const connectionOf = (server: EmbeddedServer, user: string) => ({
      ...server.connection,
      user,
      password: { reveal: () => user },
      applicationName: user,
    })
    const withRoles = async (): Promise<EmbeddedServer> => {
      const server = await startAgain()
      const database = openDatabase({ ...server.connection, applicationName: 'tests' })
      for (const role of [ROLES.writer, ROLES.reader]) await setRolePassword(database, role, role)
      await reserveForWriter(database)
      await database.close()
      return server
    }

    test('leaves connections for authd, although it takes as many as it can', { timeout: 180_000 }, async () => {
      const server = await withRoles()
      const taken = openDatabase({ ...connectionOf(server, ROLES.reader), max: 100 })
      const statement = { text: 'SELECT pg_sleep(60)', row: v.object({}) }
      const stop = new AbortController()
      const queries = Array.from({ length: 100 }, () => taken.query(statement, [], { signal: stop.signal }))
      const ends = Promise.allSettled(queries)
      const refused = await Promise.any(queries.map(query => query.then(() => '', messageOf)).map(refusal))
      // Connections that are only begun also count, so some are refused before the reserve.
      expect(refused).toMatch(/reserved for roles with privileges of the "pg_use_reserved|too many clients already/)
      const authd = openDatabase({ ...connectionOf(server, ROLES.writer), max: 4 })
      await eventually('authd has four connections', () =>
        Promise.all([1, 2, 3, 4].map(() => authd.script('SELECT pg_sleep(0.1)'))).then(
          () => true,
          () => false,
        ),
      )
      await authd.close()
      stop.abort()
      await ends
      await taken.close()
    })

    test('floods it with StartupMessages: open connections of authd go on, and new ones follow the flood', {
      timeout: 180_000,
    }, async () => {
      const server = await withRoles()
      const authd = openDatabase({ ...connectionOf(server, ROLES.writer), max: 1 })
      await authd.script('SELECT 1')
      const path = `${server.connection.hosts[0]?.host}/.s.PGSQL.${server.connection.hosts[0]?.port}`
      const sockets: Socket[] = []
      let answers = 0
      for (let n = 0; n < 300; n += 1) {
        const socket = connect({ path }).on('error', () => {})
        sockets.push(socket)
        socket.once('data', () => {
          answers += 1
        })
        socket.write(startupMessage(ROLES.reader))
      }
      await eventually('every message is answered', () => answers === 300 || sockets.every(each => each.closed))
      await authd.script('SELECT 1')
      const pid = server.pid
      for (const socket of sockets) socket.destroy()
      const next = openDatabase({ ...connectionOf(server, ROLES.writer), max: 1 })
      await eventually('authd opens another connection', async () => {
        await next.script('SELECT 1')
        return true
      })
      expect(server.pid).toBe(pid)
      await next.close()
      await authd.close()
    })
  })

  test('refuses a directory that another program uses, and names the program', async () => {
    await startAgain()
    const failure = await start().catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(EmbeddedServerFault)
    expect(failure).toMatchObject({ message: expect.stringContaining(`process ${process.pid} already runs`) })
  })

  test('starts although a copied owner file names a process that runs', async () => {
    const self = await identityOf(process.pid)
    giveCluster(directory.path)
    writeFileSync(`${base()}/owner.pid`, `${process.pid} ${self?.start}\n`)
    await expect(run(await start(), 'SELECT 1')).resolves.toBeUndefined()
  })

  test('starts although a pid file left by a crash names a process of another program', async () => {
    const server = await startAgain()
    await server.stop()
    running.splice(0)
    const bystander = spawn('sleep', ['600'])
    writeFileSync(`${base()}/data/postmaster.pid`, `${bystander.pid}\n${base()}/data\n1\n5432\n\n\n\n\n`)
    writeFileSync(`${base()}/owner.pid`, `${bystander.pid} 1\n`)
    await run(await start(), 'SELECT 1')
    expect(bystander.exitCode ?? bystander.signalCode).toBeNull()
    bystander.kill()
  })

  test('refuses data of another version without a change, and the message names the remedy', async () => {
    mkdirSync(`${base()}/data`, { recursive: true })
    writeFileSync(`${base()}/data/PG_VERSION`, '9\n')
    const failure = await start().catch((error: unknown) => error)
    expect(failure).toMatchObject({
      name: 'EmbeddedServerFault',
      message: expect.stringMatching(/PostgreSQL 9.*dump it with the older release/),
    })
  })

  test('completes a first start that was interrupted', async () => {
    mkdirSync(`${base()}/data.new/base`, { recursive: true })
    await run(await start(), 'SELECT 1')
    expect(existsSync(`${base()}/data.new`)).toBe(false)
  })

  test('a setting that PostgreSQL refuses: the message quotes PostgreSQL', async () => {
    const failure = await startEmbeddedServer({
      stateDir: directory.path,
      log,
      account: testServerAccount,
      settings: { max_connections: 'many' },
    }).catch((error: unknown) => error)
    expect(failure).toMatchObject({ message: expect.stringContaining('invalid value for parameter "max_connections"') })
    await run(await start(), 'SELECT 1')
  })

  test('accepts a state directory whose path is longer than a socket address can be', async () => {
    const deep = `${directory.path}/${'d'.repeat(100)}`
    const server = await start(deep)
    await run(server, 'SELECT 1')
    const socketDir = server.connection.hosts[0]?.host ?? ''
    await server.stop()
    running.splice(0)
    expect(existsSync(socketDir)).toBe(false)
  })

  test('stops when the program that started it is killed', async () => {
    giveCluster(directory.path)
    const script = `
      import { startEmbeddedServer } from ${JSON.stringify(new URL('../../src/database/embedded-server.ts', import.meta.url).href)}
      const quiet = () => {}
      const server = await startEmbeddedServer({ stateDir: ${JSON.stringify(directory.path)}, account: ${JSON.stringify(testServerAccount)}, log: { debug: quiet, info: quiet, warn: quiet, error: quiet } })
      console.log(server.pid)
      setInterval(quiet, 1000)`
    const parent = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const [line] = await once(createInterface({ input: parent.stdout }), 'line')
    const pid = v.parse(v.pipe(v.string(), v.transform(Number), v.integer(), v.minValue(2)), line)
    expect(await hasEnded(pid)).toBe(false)
    parent.kill('SIGKILL')
    await eventually('the server has stopped', () => hasEnded(pid))
    await run(await start(), 'SELECT 1')
  })
})

describeWith([ROOT], 'the embedded server started by root', () => {
  test('accepts connections from the group of its account alone', async () => {
    const server = await startAgain()
    const socketDirectory = server.connection.hosts[0]?.host ?? ''
    const { mode, uid, gid } = statSync(socketDirectory)
    expect([mode & 0o777, { uid, gid }]).toEqual([0o750, testServerAccount])
    await run(server, "SELECT 1 / (current_setting('authentication_timeout') = '5s')::int")
  })

  test('uses data that an older version stored under another account', async () => {
    const nobody = idsOf('nobody', 'the test')
    const first = await startEmbeddedServer({ stateDir: directory.path, log, settings, account: nobody })
    await run(first, 'CREATE TABLE kept (a int)')
    await first.stop()
    const second = await start()
    await run(second, 'SELECT count(*) FROM kept')
    expect(statSync(`${base()}/data/base`).uid).toBe(testServerAccount?.uid)
    expect(lines).toContainEqual(expect.stringContaining('database_owner_changed'))
  })

  test.each([{ uid: 0, gid: 0 }, undefined])('refuses to run as root: %j', async account => {
    const failure = await startEmbeddedServer({ stateDir: directory.path, log, account }).catch(
      (error: unknown) => error,
    )
    expect(failure).toMatchObject({
      message: expect.stringContaining('name another account in database.embedded_user'),
    })
  })

  test('runs under an account other than root that can write neither the program nor the secret', async () => {
    const server = await start()
    const uid = /^Uid:\s+(\d+)/m.exec(readFileSync(`/proc/${server.pid}/status`, 'utf8'))?.[1]
    expect(Number(uid)).toBeGreaterThan(0)
    expect(statSync(`${base()}/data`).uid).toBe(Number(uid))
    for (const entry of readdirSync(base())) {
      if (entry.startsWith('program-')) expect(statSync(`${base()}/${entry}/bin/postgres`).uid).toBe(0)
    }
    expect(statSync(`${base()}/superuser.secret`).uid).toBe(0)
  })

  test('works below a directory that is closed to other accounts', async () => {
    const closed = `${directory.path}/closed`
    mkdirSync(closed)
    chmodSync(closed, 0o700)
    const server = await start(`${closed}/var`)
    await run(server, 'SELECT 1')
    expect(server.connection.hosts[0]?.host).toMatch(/^\/var\/lib\/auth-relay\/postgresql-/)
    expect(lstatSync(`${closed}/var/postgresql`).isSymbolicLink()).toBe(true)
    const place = server.connection.hosts[0]?.host.replace(/\/run$/, '') ?? ''
    await server.stop()
    running.splice(0)
    rmSync(place, { recursive: true })
  })
})
