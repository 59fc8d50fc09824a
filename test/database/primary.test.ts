import { once } from 'node:events'
import { connect, createServer, type Socket } from 'node:net'
import * as v from 'valibot'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { type Database, type DatabaseOptions, openDatabase } from '../../src/database/database.ts'
import { ConnectionsBusy, DatabaseUnavailable, OutcomeUnknown, StatementRefused } from '../../src/database/errors.ts'
import { ignored, int8, type Statement } from '../../src/database/statement.ts'
import { eventually } from '../harness/eventually.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

const opened: Database[] = []
afterEach(() => Promise.all(opened.splice(0).map(database => database.close())))

const open = (ports: readonly number[], options: Partial<DatabaseOptions> = {}): Database => {
  const database = openDatabase({
    hosts: ports.map(port => ({ host: '127.0.0.1', port })),
    database: 'postgres',
    user: 'postgres',
    password: { reveal: () => PostgresCluster.password },
    applicationName: 'tests',
    connectTimeoutMs: 500,
    ...options,
  })
  opened.push(database)
  return database
}
const ONE: Statement<{ one: number }> = { text: 'SELECT 1 AS one', row: v.object({ one: v.number() }) }
const SLEEP: Statement<unknown> = { text: 'SELECT pg_sleep($1::float8)', row: ignored }
const PID: Statement<{ pid: number }> = { text: 'SELECT pg_backend_pid() AS pid', row: v.object({ pid: v.number() }) }
const COUNT: Statement<{ n: number }> = { text: 'SELECT count(*) AS n FROM kept', row: v.object({ n: int8 }) }
const works = async (database: Database): Promise<boolean> =>
  database.query(ONE).then(
    () => true,
    () => false,
  )
const failureOf = (promise: Promise<unknown>): Promise<unknown> => promise.catch((error: unknown) => error)

/** A host that accepts connections (or not even that) and never sends anything. */
async function silentHost(): Promise<{ port: number; close(): void }> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    sockets.add(socket)
    socket.on('error', () => {}) // an error of the client does not fail the test
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    port: address.port,
    close() {
      server.close()
      for (const socket of sockets) socket.destroy()
    },
  }
}

describe('one server', () => {
  let database: TestDatabase
  beforeAll(async () => {
    database = await createTestDatabase()
  })
  afterAll(() => database.remove())

  test('at a deadline the caller gets an answer at once, and the pool still works', async () => {
    const pool = database.open('postgres', { max: 2 })
    const watcher = database.open('postgres')
    const deadline = new AbortController()
    const asked = Promise.all(
      Array.from({ length: 6 }, () => failureOf(pool.query(SLEEP, [300], { signal: deadline.signal }))),
    )
    const runningStatements: Statement<unknown> = {
      text: "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'",
      row: ignored,
    }
    await eventually('two statements run', async () => (await watcher.query(runningStatements)).rows.length === 2)
    deadline.abort()
    const failures = await asked
    // Two statements ran, and four never got a connection.
    expect(failures.filter(failure => failure instanceof OutcomeUnknown)).toHaveLength(2)
    expect(failures.filter(failure => failure instanceof DatabaseUnavailable)).toHaveLength(4)
    for (let n = 0; n < 10; n++) expect((await pool.query(ONE)).rows).toEqual([{ one: 1 }])
  })

  test('a signal that was aborted before the call', async () => {
    const pool = database.open('postgres')
    await expect(pool.query(ONE, [], { signal: AbortSignal.abort() })).rejects.toThrow(DatabaseUnavailable)
    expect(await works(pool)).toBe(true)
  })

  test('a statement that the server cancels at statement_timeout', async () => {
    const pool = database.open('postgres', { statementTimeoutMs: 100 })
    expect(await failureOf(pool.query(SLEEP, [30]))).toMatchObject({
      name: 'StatementRefused',
      code: '57014',
      temporary: true,
    })
    expect(await works(pool)).toBe(true)
  })

  test('an error of the server does not close the connection', async () => {
    const pool = database.open('postgres', { max: 1 })
    const [before] = (await pool.query(PID)).rows
    expect(await failureOf(pool.script('SELECT nonsense'))).toBeInstanceOf(StatementRefused)
    expect((await pool.query(PID)).rows).toEqual([before])
  })

  test('a transaction rolls back if its work fails, and at the deadline', async () => {
    const pool = database.open('postgres')
    await pool.script('CREATE TABLE kept (a int)')
    const insert: Statement<unknown> = { text: 'INSERT INTO kept VALUES ($1)', row: ignored }
    await expect(
      pool.transaction(async session => {
        await session.query(insert, [1])
        throw new Error('changed my mind')
      }),
    ).rejects.toThrow('changed my mind')
    const late = pool.transaction(
      async session => {
        await session.query(insert, [2])
        await session.query(SLEEP, [30])
      },
      { signal: AbortSignal.timeout(200) },
    )
    await expect(late).rejects.toThrow(OutcomeUnknown)
    await pool.transaction(async session => {
      await session.query(insert, [3])
    })
    await eventually('one row is kept', async () => (await pool.query(COUNT)).rows[0]?.n === 1)
  })

  test('rows with unexpected columns throw a validation error', async () => {
    const pool = database.open('postgres')
    await expect(pool.query({ ...ONE, text: "SELECT 'x' AS one" })).rejects.toThrow(v.ValiError)
    expect(await works(pool)).toBe(true)
  })

  test('a connection cut by the administrator is replaced', async () => {
    const pool = database.open('postgres', { max: 1 })
    const [row] = (await pool.query(PID)).rows
    await database.owner.script(`SELECT pg_terminate_backend(${row?.pid ?? 0})`)
    await eventually('the pool works again', () => works(pool))
  })

  test('a statement that finds every connection busy fails, and the server is not lost', async () => {
    const pool = database.open('postgres', { max: 1, connectTimeoutMs: 500 })
    const states: string[] = []
    pool.onStateChange(({ state }) => states.push(state))
    const [before] = (await pool.query(PID)).rows
    const done = Promise.withResolvers<void>()
    const holder = pool.transaction(() => done.promise)
    expect(await failureOf(pool.query(ONE))).toBeInstanceOf(ConnectionsBusy)
    done.resolve()
    await holder
    expect((await pool.query(PID)).rows).toEqual([before])
    expect(states).toEqual(['up'])
  })

  test('statements that wait for a connection get it in the order in which they came', async () => {
    const pool = database.open('postgres', { max: 1, connectTimeoutMs: 60_000 })
    const done = Promise.withResolvers<void>()
    const holder = pool.transaction(() => done.promise)
    const order: number[] = []
    const waiting = Array.from({ length: 5 }, async (_, n) => {
      await pool.query(ONE)
      order.push(n)
    })
    done.resolve()
    await Promise.all([holder, ...waiting])
    expect(order).toEqual([0, 1, 2, 3, 4])
  })

  test('no statement is sent after close', async () => {
    const pool = database.open('postgres')
    await pool.close()
    await expect(pool.query(ONE)).rejects.toThrow(DatabaseUnavailable)
  })

  test('a wrong password gives a readable error', async () => {
    const pool = database.open('postgres', { password: { reveal: () => 'wrong' } })
    await expect(pool.query(ONE)).rejects.toThrow(/no primary among the database hosts.*password authentication failed/)
    expect(pool.state()).toMatchObject({ state: 'down', refusal: { code: '28P01', routine: 'auth_failed' } })
  })

  test('an unknown role and an unknown database are known by their SQLSTATE', async () => {
    for (const [unknown, code] of [
      [{ database: 'missing' }, '3D000'],
      [{ user: 'missing' }, '28P01'],
    ] as const) {
      const failure = await failureOf(database.open('postgres', unknown).query(ONE))
      expect(failure).toMatchObject({ name: 'DatabaseUnavailable', refusal: { code } })
    }
  })

  test('an empty list of hosts throws', () => {
    expect(() => openDatabase({ ...database.connection(), hosts: [], applicationName: 'tests' })).toThrow(TypeError)
  })
})

describeWith([DEBIAN_POSTGRES], 'a stopped and a started server', () => {
  let cluster: PostgresCluster
  beforeAll(async () => {
    cluster = await PostgresCluster.start()
  })
  afterAll(() => cluster.remove())

  test.each(['fast', 'kill'] as const)('stopped (%s) and started under the pool', async how => {
    const pool = open([cluster.port])
    const states: string[] = []
    pool.onStateChange(({ state }) => states.push(state))
    expect(await works(pool)).toBe(true)
    const underWay = failureOf(pool.query(SLEEP, [60]))
    await eventually('the statement runs', async () => {
      const { rows } = await pool.query({
        text: "SELECT count(*) AS n FROM pg_stat_activity WHERE query LIKE '%pg_sleep($1%' AND state = 'active' AND pid <> pg_backend_pid()",
        row: v.object({ n: int8 }),
      })
      return rows[0]?.n === 1
    })
    await cluster.stop(how)
    expect(await underWay).toBeInstanceOf(OutcomeUnknown)
    await eventually('the database counts as down', () => pool.state().state === 'down')
    await expect(pool.query(ONE)).rejects.toThrow(DatabaseUnavailable)
    // After kill -9 the orphaned backends end with a delay; until then a start fails.
    await eventually('the server starts again', () => cluster.start().then(() => true))
    await eventually('the pool works again', () => works(pool))
    expect(states[0]).toBe('up')
    expect(states.at(-1)).toBe('up')
    expect(states).toContain('down')
  })

  test('lost while a statement waits for a connection: that statement fails at once', async () => {
    const pool = open([cluster.port], { max: 1, connectTimeoutMs: 60_000 })
    expect(await works(pool)).toBe(true)
    const holder = failureOf(pool.query(SLEEP, [60]))
    const waiter = failureOf(pool.query(ONE))
    await cluster.stop('kill')
    expect(await holder).toBeInstanceOf(OutcomeUnknown)
    const failure = await waiter
    expect(failure).toBeInstanceOf(DatabaseUnavailable)
    expect(failure).not.toBeInstanceOf(ConnectionsBusy)
    await eventually('the server starts again', () => cluster.start().then(() => true))
    await eventually('the pool works again', () => works(pool))
  })

  test('unreachable at first, and used when it starts', async () => {
    await cluster.stop()
    const pool = open([cluster.port])
    await expect(pool.query(ONE)).rejects.toThrow(DatabaseUnavailable)
    await cluster.start()
    await eventually('found', () => pool.state().state === 'up')
    expect(await works(pool)).toBe(true)
  })

  test('behind a host that never answers', async () => {
    const silent = await silentHost()
    const pool = open([silent.port, cluster.port])
    expect((await pool.query(ONE)).rows).toEqual([{ one: 1 }])
    silent.close()
  })
})

describeWith([DEBIAN_POSTGRES], 'a primary and its streaming replica', () => {
  let primary: PostgresCluster
  let replica: PostgresCluster
  beforeAll(async () => {
    primary = await PostgresCluster.start()
    replica = await PostgresCluster.start({ replicaOf: primary })
  })
  afterAll(async () => {
    await primary.remove()
    await replica.remove()
  })

  test('the standby is skipped; after pg_promote it is used; committed data is there', async () => {
    const pool = open([replica.port, primary.port])
    await pool.script('CREATE TABLE kept (a int); INSERT INTO kept VALUES (1)')
    expect(pool.state()).toEqual({
      state: 'up',
      host: `127.0.0.1:${primary.port}`,
      pooled: false,
      synchronousCommit: 'on',
    })
    const behind = open([replica.port])
    await expect(behind.query(ONE)).rejects.toThrow(/a standby/)
    const lag: Statement<{ caught_up: boolean }> = {
      text: 'SELECT coalesce(bool_and(replay_lsn >= pg_current_wal_lsn()), false) AS caught_up FROM pg_stat_replication',
      row: v.object({ caught_up: v.boolean() }),
    }
    await eventually('the replica has every row', async () => (await pool.query(lag)).rows[0]?.caught_up)
    await primary.stop('kill')
    replica.promote()
    await eventually('the new primary accepts writes', async () => {
      await pool.script('INSERT INTO kept VALUES (2)')
      return true
    })
    expect(pool.state()).toEqual({
      state: 'up',
      host: `127.0.0.1:${replica.port}`,
      pooled: false,
      synchronousCommit: 'on',
    })
    expect((await pool.query(COUNT)).rows).toEqual([{ n: 2 }])
    await eventually('the pool with the address of the standby alone finds a primary there', () => works(behind))
  })
})

describeWith([DEBIAN_POSTGRES], 'a primary whose host has stopped answering', () => {
  test('the query ends at its deadline, and the other host is used', async () => {
    const cluster = await PostgresCluster.start()
    // The network path to the server, which then drops everything, so that no packet reports that
    // the host is down.
    const sockets: Socket[] = []
    let swallow = false
    const way = createServer(client => {
      const server = connect(cluster.port, '127.0.0.1')
      sockets.push(client, server)
      client.on('error', () => {}).on('data', chunk => swallow || server.write(chunk))
      server.on('error', () => {}).on('data', chunk => swallow || client.write(chunk))
    }).listen(0, '127.0.0.1')
    await once(way, 'listening')
    const address = way.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    const pool = open([address.port, cluster.port])
    expect(await works(pool)).toBe(true)
    expect(pool.state()).toMatchObject({ host: `127.0.0.1:${address.port}` })
    swallow = true
    const lost = await failureOf(pool.query(ONE, [], { signal: AbortSignal.timeout(300) }))
    expect(lost).toBeInstanceOf(OutcomeUnknown)
    await eventually('the other host answers', () => works(pool))
    expect(pool.state()).toMatchObject({ host: `127.0.0.1:${cluster.port}` })
    await pool.close()
    for (const socket of sockets) socket.destroy()
    way.close()
    await cluster.remove()
  })
})
