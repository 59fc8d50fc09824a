import * as v from 'valibot'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { Counters } from '../../src/authd/counters.ts'
import { GrantQueue } from '../../src/authd/grant-queue.ts'
import { createLog } from '../../src/base/log.ts'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { DatabaseUnavailable, OutcomeUnknown } from '../../src/database/errors.ts'
import { migrate } from '../../src/database/migrate.ts'
import { ignored, int8, type Statement } from '../../src/database/statement.ts'
import { inspectRole } from '../../src/grants/database-setup.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { networkOf } from '../../src/wire/ip-address.ts'
import type { LoginAnswer } from '../../src/wire/login-event.ts'
import { eventually } from '../harness/eventually.ts'
import { address } from '../harness/hosts/network-namespace.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

describeWith([DEBIAN_POSTGRES], 'a primary and its synchronous standby', () => {
  let primary: PostgresCluster
  let standby: PostgresCluster
  let owner: Database
  const opened: Database[] = []
  let last = 0

  const open = (user: string, ports: readonly number[], cluster: { standbyAgeMs: number } | undefined): Database => {
    const database = openDatabase({
      hosts: ports.map(port => ({ host: '127.0.0.1', port })),
      database: 'postgres',
      user,
      password: { reveal: () => (user === 'postgres' ? PostgresCluster.password : user) },
      applicationName: 'tests',
      connectTimeoutMs: 1000,
      lockTimeoutMs: 300,
      cluster,
    })
    opened.push(database)
    return database
  }
  const rules = { standbyAgeMs: 3000 }
  const both = () => [primary.port, standby.port]
  const writer = (database: Database) => createGrantWriter(database, grantPolicy())
  const reader = (database: Database) => createGrantReader(database, grantPolicy())
  const freshIp = () => {
    last += 1
    return address(`192.0.2.${last}`)
  }
  const login = (ip: ReturnType<typeof address>) => ({
    event: { id: `t.${ip}`, ip, daemon: 'popup', tls: true, method: 'pass' as const, user: 'ann' },
    at: null,
  })
  /** True if the address has a row on this server, with any content. */
  const has = async (database: Database, ip: string): Promise<boolean> =>
    (await database.query({ text: 'SELECT FROM grants WHERE ip = $1', row: ignored }, [ip])).rows.length === 1
  const WAITING: Statement<{ n: number }> = {
    text: "SELECT count(*) AS n FROM pg_stat_activity WHERE wait_event = 'SyncRep'",
    row: v.object({ n: int8 }),
  }
  const commitWaits = () =>
    eventually('a commit waits for the standby', async () => ((await owner.query(WAITING)).rows[0]?.n ?? 0) > 0)
  const cancelWaits = () =>
    owner.script("SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'")
  beforeAll(async () => {
    primary = await PostgresCluster.start({ settings: { wal_sender_timeout: '60s', cluster_name: 'n1' } })
    standby = await PostgresCluster.start({
      replicaOf: primary,
      settings: { cluster_name: 'n2', wal_receiver_status_interval: '1s' },
    })
    owner = open('postgres', [primary.port], undefined)
    await migrate(owner, new URL('../../sql/', import.meta.url).pathname)
    for (const role of ['pop3authd', 'authwrap']) await owner.script(`ALTER ROLE ${role} PASSWORD '${role}'`)
    await owner.script("ALTER SYSTEM SET synchronous_standby_names = 'n2'")
    await owner.script('SELECT pg_reload_conf()')
    await eventually('the standby is synchronous', async () => {
      const { rows } = await owner.query({
        text: "SELECT FROM pg_stat_replication WHERE sync_state = 'sync'",
        row: ignored,
      })
      return rows.length === 1
    })
  })
  beforeEach(() => {
    standby.resumeReplication()
  })
  afterAll(async () => {
    standby?.resumeReplication()
    await Promise.all(opened.map(database => database.close()))
    await standby?.remove()
    await primary?.remove()
  })

  test('a login is committed when the standby has it', async () => {
    const ip = freshIp()
    const [outcome] = await writer(open('pop3authd', both(), rules)).record([login(ip)])
    expect(outcome).toMatchObject({ kind: 'granted' })
  })

  test('a cancelled wait has an unknown outcome, although the row is visible on the primary', async () => {
    const ip = freshIp()
    standby.stallReplication()
    const recorded = writer(open('pop3authd', both(), rules))
      .record([login(ip)])
      .catch((error: unknown) => error)
    await commitWaits()
    await cancelWaits()
    expect(await recorded).toBeInstanceOf(OutcomeUnknown)
    expect(await has(owner, ip)).toBe(true)
  })

  test('a cancelled wait of a block has an unknown outcome', async () => {
    standby.stallReplication()
    const admin = createGrantAdmin(open('pop3authd', both(), rules), grantPolicy())
    const request = { forSeconds: 3600, reason: 'test', owner: 'tests' }
    const blocked = admin
      .block({ kind: 'network', network: networkOf(freshIp(), 32) }, request)
      .catch((error: unknown) => error)
    await commitWaits()
    await cancelWaits()
    expect(await blocked).toBeInstanceOf(OutcomeUnknown)
  })

  test('during an endless wait authd answers `queued` in time; a later `committed` means that the row is stored', async () => {
    const database = open('pop3authd', both(), rules)
    const lines: string[] = []
    const queue = new GrantQueue({
      store: writer(database),
      log: createLog('authd', { write: line => lines.push(line) }),
      counters: new Counters(),
      clock: Date.now,
      monotonic: () => performance.now(),
      commitWait: 300,
      commitDeadline: 1500,
      backOff: { first: 200, longest: 500 },
    })
    const answers: LoginAnswer[] = []
    const submit = (ip: ReturnType<typeof address>): void =>
      queue.submit({ event: login(ip).event, source: 'socket', answer: answer => answers.push(answer) })
    standby.stallReplication()
    const [first, second] = [freshIp(), freshIp()]
    submit(first)
    await commitWaits()
    submit(second)
    await eventually('both logins are queued', () => answers.length === 2)
    expect(answers.map(({ verdict }) => verdict)).toEqual(['queued', 'queued'])
    await eventually('the store counts as down', () => queue.storeIsDown)
    standby.resumeReplication()
    await eventually('both logins are stored', () => queue.length === 0)
    expect(await has(owner, first)).toBe(true)
    expect(await has(owner, second)).toBe(true)
    queue.close()
  })

  test('a row that another transaction has locked delays only its own address', async () => {
    const database = open('pop3authd', both(), rules)
    const [taken, free] = [freshIp(), freshIp()]
    await writer(database).record([login(taken)])
    const answers: LoginAnswer[] = []
    const queue = new GrantQueue({
      store: writer(database),
      log: createLog('authd', { write: () => {} }),
      counters: new Counters(),
      clock: Date.now,
      monotonic: () => performance.now(),
      commitWait: 10_000,
    })
    await owner.transaction(async session => {
      await session.query({ text: 'SELECT FROM grants WHERE ip = $1 FOR UPDATE', row: ignored }, [taken])
      for (const ip of [taken, free]) {
        queue.submit({ event: login(ip).event, source: 'socket', answer: answer => answers.push(answer) })
      }
      await eventually('both logins are answered', () => answers.length === 2)
    })
    expect(answers.find(({ id }) => id === `t.${free}`)).toMatchObject({ verdict: 'committed' })
    expect(answers.find(({ id }) => id === `t.${taken}`)).toMatchObject({ verdict: 'queued' })
    await eventually('the other login is stored', () => queue.length === 0)
    queue.close()
  })

  test('if the role lowers synchronous_commit, authd raises it, and the state and check report it', async () => {
    await owner.script('ALTER ROLE pop3authd SET synchronous_commit = local')
    try {
      const database = open('pop3authd', both(), rules)
      standby.stallReplication()
      const recorded = writer(database).record([login(freshIp())], { signal: AbortSignal.timeout(8000) })
      const ended = recorded.catch((error: unknown) => error)
      await commitWaits()
      expect(database.state()).toMatchObject({ synchronousCommit: 'local' })
      standby.resumeReplication()
      expect(await ended).toMatchObject([{ kind: 'granted' }])
      expect(await inspectRole(database)).toMatchObject({ synchronousCommit: 'local', standbyNames: 'n2' })
    } finally {
      await owner.script('ALTER ROLE pop3authd RESET synchronous_commit')
    }
  })

  test('without synchronous_standby_names no login counts as committed', async () => {
    const database = open('pop3authd', both(), rules)
    await writer(database).record([login(freshIp())])
    await owner.script("ALTER SYSTEM SET synchronous_standby_names = ''")
    await owner.script('SELECT pg_reload_conf()')
    try {
      await eventually('the empty setting is noticed', () =>
        writer(database)
          .record([login(freshIp())])
          .then(
            () => false,
            (error: unknown) => error instanceof OutcomeUnknown,
          ),
      )
    } finally {
      await owner.script("ALTER SYSTEM SET synchronous_standby_names = 'n2'")
      await owner.script('SELECT pg_reload_conf()')
    }
  })

  test('the gate accepts answers of the primary while its standby answers, and not after standby_age', async () => {
    const ip = freshIp()
    await writer(open('pop3authd', both(), rules)).record([login(ip)])
    const gate = reader(open('authwrap', both(), rules))
    await eventually('yes', () =>
      gate.lookup(ip).then(
        grant => grant !== undefined,
        () => false,
      ),
    )
    standby.stallReplication()
    const stalled = performance.now()
    // Until the refusal the answers name a proof from before the stall. A query for the standby's
    // answers may see it later.
    const answers: { readonly at: number; readonly provenAt: number }[] = []
    await eventually('the list is refused', () =>
      gate.current({ onProof: provenAt => answers.push({ at: performance.now(), provenAt }) }).then(
        () => false,
        (error: unknown) => error instanceof DatabaseUnavailable,
      ),
    )
    const last = answers.at(-1)
    expect((last?.at ?? 0) - stalled).toBeGreaterThan(1500)
    expect((last?.provenAt ?? Infinity) - stalled).toBeLessThan(1000)
    await eventually('the lookup is refused', () =>
      gate.lookup(ip).then(
        () => false,
        (error: unknown) => error instanceof DatabaseUnavailable,
      ),
    )
    // Never before the limit minus the interval of the answers. The delay after it depends on the
    // machine.
    expect(performance.now() - stalled).toBeGreaterThan(1500)
    await expect(reader(open('authwrap', both(), rules)).current()).rejects.toThrow(/may not be the primary/)
    standby.resumeReplication()
    await eventually('the lookup succeeds again', () =>
      gate.lookup(ip).then(
        grant => grant !== undefined,
        () => false,
      ),
    )
  })

  test('after a failover the committed rows are there, the unknown commit is resolved, and the block applies', async () => {
    const database = open('pop3authd', both(), rules)
    const [granted, blocked, unknown] = [freshIp(), freshIp(), freshIp()]
    await writer(database).record([login(granted), login(blocked)])
    const admin = createGrantAdmin(database, grantPolicy())
    const request = { forSeconds: 3600, reason: 'test', owner: 'tests' }
    await admin.block({ kind: 'network', network: networkOf(blocked, 32) }, request)
    standby.stallReplication()
    const recorded = writer(database)
      .record([login(unknown)])
      .catch((error: unknown) => error)
    await commitWaits()
    await primary.stop('kill')
    expect(await recorded).toBeInstanceOf(OutcomeUnknown)
    standby.resumeReplication()
    standby.promote()
    // The new primary has no standby yet, so no login counts as committed there.
    const alone = open('postgres', [standby.port], undefined)
    await eventually('the new primary is found', () => database.state().state === 'up')
    expect(await has(alone, granted)).toBe(true)
    expect(await has(alone, blocked)).toBe(false)
    await expect(writer(database).record([login(unknown)])).rejects.toThrow(OutcomeUnknown)
    const heir = await PostgresCluster.start({
      replicaOf: standby,
      settings: { cluster_name: 'n3', wal_receiver_status_interval: '1s' },
    })
    try {
      await alone.script("ALTER SYSTEM SET synchronous_standby_names = 'n3'")
      await alone.script('SELECT pg_reload_conf()')
      const again = open('pop3authd', both(), rules)
      await eventually('the login is recorded again', () =>
        writer(again)
          .record([login(unknown)])
          .then(
            () => true,
            () => false,
          ),
      )
      expect((await writer(again).record([login(blocked)]))[0]).toMatchObject({ kind: 'refused', reason: 'blocked' })
      const gate = reader(open('authwrap', both(), rules))
      for (const [ip, relays] of [
        [granted, true],
        [unknown, true],
        [blocked, false],
      ] as const) {
        await eventually(`the gate answers for ${ip}`, () =>
          gate.lookup(ip).then(
            grant => (grant !== undefined) === relays,
            () => false,
          ),
        )
      }
    } finally {
      await Promise.all(opened.splice(0).map(each => each.close()))
      await heir.remove()
    }
  })
})
