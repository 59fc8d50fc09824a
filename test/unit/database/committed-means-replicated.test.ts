import { afterEach, describe, expect, it } from 'vitest'
import { type Database, type DatabaseOptions, openDatabase } from '../../../src/database/database.ts'
import { DatabaseUnavailable, OutcomeUnknown } from '../../../src/database/errors.ts'
import { ignored, type Statement } from '../../../src/database/statement.ts'
import { eventually } from '../../harness/eventually.ts'
import { ScriptedPostgres, type ScriptedReply } from '../../harness/postgres/scripted-postgres.ts'

const WRITE: Statement<unknown> = { text: 'INSERT INTO kept VALUES (1)', row: ignored }
const ASK: Statement<unknown> = { text: 'SELECT the grant', row: ignored }

/** Messages of PostgreSQL 15 in German, because only SQLSTATE and routine may decide. */
const CANCELLED = {
  S: 'WARNUNG',
  V: 'WARNING',
  C: '01000',
  M: 'storniere Warten auf synchrone Replikation wegen Benutzeraufforderung',
  R: 'SyncRepWaitForLSN',
}

type Script = {
  commit?: string
  standbys?: string
  timeline?: number
  readOnly?: boolean
  replies?: () => { names: string; standbys: readonly { name: string; pid: number; replied: number }[] }
  started?: string
  other?: (text: string) => ScriptedReply | Promise<ScriptedReply>
}

const servers: ScriptedPostgres[] = []
const opened: Database[] = []
afterEach(async () => {
  await Promise.all(opened.splice(0).map(database => database.close()))
  for (const server of servers.splice(0)) server.close()
})

/** A primary with the columns of this package's statements. */
async function primary(script: Script): Promise<ScriptedPostgres> {
  const server = await ScriptedPostgres.start(text => {
    const { commit = 'on', standbys = '"n2"', timeline = 1, readOnly = false } = script
    if (text.includes('pg_postmaster_start_time')) {
      return {
        columns: [
          { name: 'started', type: 'timestamptz' },
          { name: 'found', type: 'text' },
        ],
        rows: [[script.started ?? '2026-01-01 00:00:00+00', commit]],
      }
    }
    if (text.includes('AS read_only')) {
      return {
        columns: [
          { name: 'read_only', type: 'bool' },
          { name: 'timeline', type: 'int4' },
          { name: 'pid', type: 'int4' },
        ],
        rows: [[readOnly ? 't' : 'f', String(timeline), '4711']],
      }
    }
    if (text.includes('AS commit')) {
      return {
        columns: [
          { name: 'commit', type: 'text' },
          { name: 'standbys', type: 'text' },
        ],
        rows: [[commit, standbys]],
      }
    }
    if (text.includes('standby_replies()')) {
      const { names, standbys: rows } = script.replies?.() ?? { names: '', standbys: [] }
      return {
        columns: [
          { name: 'names', type: 'text' },
          { name: 'standbys', type: 'jsonb' },
        ],
        rows: [[names, JSON.stringify(rows)]],
      }
    }
    return script.other?.(text) ?? {}
  })
  servers.push(server)
  return server
}

function open(ports: readonly number[], options: Partial<DatabaseOptions> = {}): Database {
  const database = openDatabase({
    hosts: ports.map(port => ({ host: '127.0.0.1', port })),
    database: 'test',
    user: 'test',
    applicationName: 'tests',
    ...options,
  })
  opened.push(database)
  return database
}
const cluster = { standbyAgeMs: 600 }

describe('a commit whose wait for the synchronous standby was cancelled', () => {
  it.each([
    ['a cancelled wait, in another language', CANCELLED],
    ['a server that names no routine', { S: 'WARNING', C: '01000', M: 'canceling wait' }],
    ['a shutdown', { S: 'WARNING', C: '57P01', M: 'terminating', R: 'SyncRepWaitForLSN' }],
  ])('has an unknown outcome: %s', async (_, notice) => {
    const server = await primary({ other: text => (text === WRITE.text ? { notices: [notice] } : {}) })
    const database = open([server.port], { max: 1 })
    await expect(database.query(WRITE)).rejects.toThrow(OutcomeUnknown)
    // The connection is not used again.
    const before = server.connections
    await database.query(ASK)
    expect(server.connections).toBe(before + 1)
  })

  it('has an unknown outcome in a transaction', async () => {
    const server = await primary({ other: text => (text === 'COMMIT' ? { notices: [CANCELLED] } : {}) })
    const work = open([server.port]).transaction(session => session.query(WRITE))
    await expect(work).rejects.toThrow(/alone, perhaps not on a standby: .*01000/)
  })

  it.each([
    ['a NOTICE', { S: 'NOTICE', C: '00000', M: 'relation exists, skipping', R: 'DefineRelation' }],
    ['a warning of a function', { S: 'WARNING', C: '01000', M: 'look here', R: 'exec_stmt_raise' }],
    ['another warning', { S: 'WARNING', C: '25001', M: 'already a transaction', R: 'BeginTransactionBlock' }],
  ])('is not confused with %s', async (_, notice) => {
    const server = await primary({ other: text => (text === WRITE.text ? { notices: [notice] } : {}) })
    await expect(open([server.port]).query(WRITE)).resolves.toMatchObject({ rows: [] })
  })

  it('does not change the outcome of the next statement', async () => {
    let isFirst = true
    const server = await primary({
      other: text => {
        const notices = text === WRITE.text && isFirst ? [CANCELLED] : []
        if (text === WRITE.text) isFirst = false
        return { notices }
      },
    })
    const database = open([server.port], { max: 1 })
    await expect(database.query(WRITE)).rejects.toThrow(OutcomeUnknown)
    await expect(database.query(WRITE)).resolves.toBeDefined()
  })
})

describe('a new connection', () => {
  it('requests warnings, and in a cluster synchronous commits', async () => {
    const server = await primary({})
    await open([server.port], { cluster, lockTimeoutMs: 1000 }).query(ASK)
    const setup = server.statements.find(text => text.includes('pg_postmaster_start_time')) ?? ''
    expect(setup).toContain("set_config('client_min_messages', 'warning', false)")
    expect(setup).toContain("set_config('lock_timeout', '1000', false)")
    expect(setup).toContain(
      "set_config('synchronous_commit', CASE s.found WHEN 'remote_apply' THEN s.found ELSE 'on' END",
    )
  })

  it('is not used if the request is refused', async () => {
    const server = await ScriptedPostgres.start(text =>
      text.includes('client_min_messages') ? { error: { code: '42501', message: 'permission denied' } } : {},
    )
    servers.push(server)
    await expect(open([server.port]).query(ASK)).rejects.toThrow(/permission denied/)
    expect(server.statements).not.toContain(ASK.text)
  })

  it('shows its synchronous_commit in the state', async () => {
    const server = await primary({ commit: 'local' })
    const database = open([server.port])
    await database.query(ASK)
    expect(database.state()).toMatchObject({ state: 'up', synchronousCommit: 'local' })
  })

  it('to another server under the same name is noticed', async () => {
    const script: Script = {}
    const server = await primary(script)
    // One connection is in use, so that a second one is made, to another server.
    let letGo = (): void => {}
    const held = new Promise<void>(resolve => {
      letGo = resolve
    })
    const wide = open([server.port], { max: 2 })
    await wide.query(WRITE)
    const first = wide.transaction(() => held)
    await eventually('a transaction uses the connection', () => server.statements.includes('BEGIN'))
    script.started = '2026-02-02 00:00:00+00'
    await expect(wide.query(WRITE)).rejects.toThrow(/leads to another server now/)
    letGo()
    await first.catch(() => undefined)
    await eventually('the new server is found', () =>
      wide.query(WRITE).then(
        () => true,
        () => false,
      ),
    )
  })
})

describe('a durable statement in a cluster', () => {
  const durable = { durable: true }
  it.each([
    [{ commit: 'local' }, /synchronous_commit is local/],
    [{ commit: 'off' }, /synchronous_commit is off/],
    [{ commit: 'remote_write' }, /synchronous_commit is remote_write/],
    [{ standbys: '' }, /synchronous_standby_names is empty/],
  ])('has an unknown outcome with %j', async (script, message) => {
    const server = await primary(script)
    const database = open([server.port], { cluster })
    await expect(database.query(WRITE, [], durable)).rejects.toThrow(OutcomeUnknown)
    await expect(database.transaction(session => session.query(WRITE), durable)).rejects.toThrow(message)
    // Without a cluster no setting is checked.
    await expect(open([server.port]).query(WRITE, [], durable)).resolves.toBeDefined()
  })

  it('runs with on, and with remote_apply', async () => {
    for (const commit of ['on', 'remote_apply']) {
      const server = await primary({ commit })
      await expect(open([server.port], { cluster }).query(WRITE, [], durable)).resolves.toBeDefined()
    }
  })

  it('ends at the deadline without a cancel request if it waits in vain, and no statement follows before a standby streams', async () => {
    let standbys: { name: string; pid: number; replied: number }[] = []
    let isStuck = true
    const server = await primary({
      replies: () => ({ names: '"n2"', standbys }),
      other: text => (text === WRITE.text && isStuck ? { silent: true } : {}),
    })
    const database = open([server.port], { cluster })
    const signal = AbortSignal.timeout(200)
    await expect(database.query(WRITE, [], { durable: true, signal })).rejects.toThrow(OutcomeUnknown)
    await eventually('a repetition is refused', () =>
      database.query(WRITE, [], durable).then(
        () => false,
        (error: unknown) => error instanceof DatabaseUnavailable && error.message.includes('no synchronous standby'),
      ),
    )
    expect(server.statements.filter(text => text === WRITE.text)).toHaveLength(1)
    expect(server.cancelRequests).toBe(0)
    isStuck = false
    standbys = [{ name: 'n2', pid: 7, replied: 1 }]
    await eventually('the statement is committed again', () =>
      database.query(WRITE, [], durable).then(
        () => true,
        () => false,
      ),
    )
  })

  it('is not repeated on a server that the deadline dropped and the search found again', async () => {
    let standbys: { name: string; pid: number; replied: number }[] = []
    let isStuck = true
    const server = await primary({
      replies: () => ({ names: '"n2"', standbys }),
      other: text => (text === WRITE.text && isStuck ? { silent: true } : {}),
    })
    const database = open([server.port], { cluster })
    const states: string[] = []
    database.onStateChange(({ state }) => states.push(state))
    // An answer before the stuck statement: at the deadline the server has been silent throughout.
    await database.query(ASK)
    for (let n = 0; n < 4; n++) {
      const signal = AbortSignal.timeout(200)
      const repeated = database.query(WRITE, [], { durable: true, signal })
      await expect(repeated).rejects.toThrow(n === 0 ? OutcomeUnknown : 'no synchronous standby streams')
    }
    expect(states).toEqual(['up', 'down', 'up'])
    expect(server.statements.filter(text => text === WRITE.text)).toHaveLength(1)
    isStuck = false
    standbys = [{ name: 'n2', pid: 7, replied: 1 }]
    await expect(database.query(WRITE, [], durable)).resolves.toBeDefined()
    // The guard has ended: no further query for the standbys.
    standbys = []
    await expect(database.query(WRITE, [], durable)).resolves.toBeDefined()
  })

  it('is sent at once to the primary of a later timeline', async () => {
    const later: Script = { readOnly: true, timeline: 2 }
    const promoted = await primary(later)
    const old = await primary({ other: text => (text === WRITE.text ? { silent: true } : {}) })
    const database = open([old.port, promoted.port], { cluster })
    await database.query(ASK)
    later.readOnly = false
    await expect(database.query(WRITE, [], { durable: true, signal: AbortSignal.timeout(200) })).rejects.toThrow(
      OutcomeUnknown,
    )
    await expect(database.query(WRITE, [], durable)).resolves.toBeDefined()
    expect(promoted.statements).toContain(WRITE.text)
  })
})

describe('an answer that needs a proof', () => {
  const proven = { proven: true }
  /** A standby that answers its primary, seen by a clock that is five minutes ahead. */
  const answering = () => ({ names: '"n2"', standbys: [{ name: 'n2', pid: 7, replied: Date.now() + 300_000 }] })

  it('counts while the synchronous standby answers its primary', async () => {
    const server = await primary({ replies: answering })
    await expect(open([server.port], { cluster }).query(ASK, [], proven)).resolves.toBeDefined()
  })

  // With this limit a watch over connections that have ended would wait for longer than the test.
  const patient = { cluster: { standbyAgeMs: 3_600_000 } }

  it('is not waited for on a primary that is lost in the same turn, but on the one that is found next', async () => {
    const server = await primary({
      replies: answering,
      other: text => (text === WRITE.text ? { silent: true } : {}),
    })
    const database = open([server.port], patient)
    await database.query(ASK)
    const deadline = new AbortController()
    const stuck = expect(database.query(WRITE, [], { signal: deadline.signal })).rejects.toThrow(OutcomeUnknown)
    await eventually('the statement arrives', () => server.statements.includes(WRITE.text))
    deadline.abort()
    const next = database.query(ASK, [], proven)
    await stuck
    await expect(next).resolves.toBeDefined()
  })

  it('is not waited for after the database was closed in the same turn', async () => {
    const server = await primary({ replies: answering })
    const database = open([server.port], patient)
    await database.query(ASK)
    const asked = expect(database.query(ASK, [], proven)).rejects.toThrow('the database is closed')
    await database.close()
    await asked
    expect(server.statements.some(text => text.includes('standby_replies()'))).toBe(false)
  })

  it.each([
    ['does not answer again', { names: '"n2"', standbys: [{ name: 'n2', pid: 7, replied: 9e15 }] }],
    ['is not connected', { names: '"n2"', standbys: [] }],
    ['is not named in synchronous_standby_names', { names: '*', standbys: [{ name: 'n2', pid: 7, replied: 1 }] }],
  ])('does not count if the standby %s', async (_, replies) => {
    const server = await primary({ replies: () => replies })
    const database = open([server.port], { cluster })
    await expect(database.query(ASK, [], proven)).rejects.toThrow(/may not be the primary any more/)
    // A statement that needs no proof is answered.
    await expect(database.query(ASK)).resolves.toBeDefined()
    // Without a cluster, or without a limit, no proof is needed.
    await expect(open([server.port]).query(ASK, [], proven)).resolves.toBeDefined()
    await expect(open([server.port], { cluster: { standbyAgeMs: 0 } }).query(ASK, [], proven)).resolves.toBeDefined()
  })

  it('does not count any more when the standby is silent, and the later primary is found', async () => {
    let isCut = false
    let last = answering()
    const old = await primary({
      timeline: 1,
      replies: () => {
        if (!isCut) last = answering()
        return last
      },
    })
    const later: Script = { readOnly: true, timeline: 2, replies: answering }
    const promoted = await primary(later)
    const database = open([old.port, promoted.port], { cluster })
    await database.query(ASK, [], proven)
    expect(database.state()).toMatchObject({ host: `127.0.0.1:${old.port}` })
    // The old primary still answers.
    isCut = true
    await eventually('the old primary is refused', () =>
      database.query(ASK, [], proven).then(
        () => false,
        (error: unknown) => error instanceof DatabaseUnavailable,
      ),
    )
    later.readOnly = false
    await eventually('the new primary answers', () =>
      database.query(ASK, [], proven).then(
        () => true,
        () => false,
      ),
    )
    expect(database.state()).toMatchObject({ host: `127.0.0.1:${promoted.port}` })
  })

  it('counts again after a restart of the server during which nothing was proven', async () => {
    const script: Script = { replies: answering }
    const server = await primary(script)
    const database = open([server.port], { cluster, max: 1 })
    const isAccepted = () =>
      database.query(ASK, [], proven).then(
        () => true,
        () => false,
      )
    await database.query(ASK, [], proven)
    script.replies = () => ({ names: '"n2"', standbys: [] })
    await eventually('the server is refused', async () => !(await isAccepted()))
    // The restart ends the only connection during a query of the watch.
    const { reply } = server
    server.reply = text => {
      if (!text.includes('standby_replies()')) return reply(text)
      script.started = '2026-01-01 00:05:00+00'
      script.replies = answering
      server.reply = reply
      return { hangUp: true }
    }
    await eventually('the server is restarted', () => script.started !== undefined)
    await eventually('the server is accepted again', isAccepted)
  })

  it('of two primaries the one with the later timeline is used, in either order', async () => {
    const old = await primary({ timeline: 3, replies: answering })
    const promoted = await primary({ timeline: 4, replies: answering })
    for (const ports of [
      [old.port, promoted.port],
      [promoted.port, old.port],
    ]) {
      const database = open(ports, { cluster })
      await database.query(ASK)
      expect(database.state()).toMatchObject({ host: `127.0.0.1:${promoted.port}` })
    }
  })
})
