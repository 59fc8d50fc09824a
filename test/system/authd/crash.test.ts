import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openDatabase } from '../../../src/database/database.ts'
import { migrate } from '../../../src/database/migrate.ts'
import type { LoginAnswer } from '../../../src/wire/login-event.ts'
import { AuthdClient, loginFrom, publicAddress } from '../../harness/authd/authd-client.ts'
import { databaseSettings } from '../../harness/authd/authd-settings.ts'
import { eventually } from '../../harness/eventually.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../../harness/postgres/postgres-cluster.ts'
import { storedGrants } from '../../harness/postgres/stored-grants.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { describeWith } from '../../harness/runner/describe-with.ts'
import { Stack } from '../../harness/stack.ts'

/** `npm run test:soak -- kills` runs more. */
const ROUNDS = 20
/** The default of the setting. */
const COMMIT_WAIT_MS = 800
const IN_FLIGHT = 64

let stack: Stack
beforeEach(() => {
  stack = new Stack()
  stack.showLogsOnFailure()
})
afterEach(() => stack.stop())

const socketPath = (): string => `${stack.directory}/run/authd.sock`

/** Announces logins without pause until it is stopped; records every answer by address. */
class Load {
  readonly answers = new Map<string, LoginAnswer>()
  #next: number
  #stopped = false
  #client: AuthdClient | undefined

  constructor(first: number) {
    this.#next = first
  }

  get next(): number {
    return this.#next
  }

  async start(): Promise<void> {
    this.#client = await AuthdClient.connect(socketPath())
    for (let n = 0; n < IN_FLIGHT; n++) this.#announce(this.#client)
  }

  stop(): void {
    this.#stopped = true
  }

  close(): void {
    this.stop()
    this.#client?.close()
  }

  #announce(client: AuthdClient): void {
    if (this.#stopped || client.closed) return
    const ip = publicAddress(this.#next)
    this.#next += 1
    void client.announce(loginFrom(`1.${this.#next}`, ip)).then(answer => {
      this.answers.set(ip, answer)
      this.#announce(client)
    })
  }

  committed(): readonly string[] {
    return [...this.answers].filter(([, { verdict }]) => verdict === 'committed').map(([ip]) => ip)
  }
}

describe('kill -9 of authd', () => {
  let database: TestDatabase
  beforeEach(async () => {
    database = await createTestDatabase()
    stack.configure({
      ...databaseSettings(database.connection('pop3authd')),
      '': { log_level: 'warn' },
      authd: { socket: socketPath(), usage_socket: '' },
    })
  })
  afterEach(() => database.remove())

  it(`${ROUNDS} times under load: every login with the answer committed is in the table`, {
    timeout: 300_000,
  }, async () => {
    const committed: string[] = []
    let next = 0
    for (let round = 0; round < ROUNDS; round++) {
      const authd = await stack.start('authd')
      const load = new Load(next)
      await load.start()
      // After a number of answers that differs from round to round.
      const enough = 1 + ((round * 37) % 400)
      await eventually(`${enough} answers`, () => load.answers.size >= enough)
      authd.signal('SIGKILL')
      await authd.ended
      load.close()
      committed.push(...load.committed())
      next = load.next
    }
    const stored = await storedGrants(database.owner)
    expect(committed.length).toBeGreaterThan(ROUNDS)
    expect(committed.filter(ip => !stored.has(ip))).toEqual([])
  })
})

describeWith([DEBIAN_POSTGRES], 'the database becomes unavailable', () => {
  let cluster: PostgresCluster
  beforeEach(async () => {
    cluster = await PostgresCluster.start()
    const owner = openDatabase({ ...ownerConnection(), applicationName: 'tests', max: 1 })
    await migrate(owner, new URL('../../../sql/', import.meta.url).pathname)
    await owner.script("ALTER ROLE pop3authd PASSWORD 'pop3authd'")
    await owner.close()
    stack.configure({
      ...databaseSettings({
        ...ownerConnection(),
        user: 'pop3authd',
        password: { reveal: () => 'pop3authd' },
      }),
      authd: { socket: socketPath(), usage_socket: '', commit_wait: '800ms' },
    })
  }, 120_000)
  afterEach(() => cluster.remove())

  const ownerConnection = () => ({
    hosts: [{ host: '127.0.0.1', port: cluster.port }],
    database: 'postgres',
    user: 'postgres',
    password: { reveal: () => PostgresCluster.password },
  })
  const stored = async () => {
    const owner = openDatabase({ ...ownerConnection(), applicationName: 'tests', max: 1 })
    try {
      return await storedGrants(owner)
    } finally {
      await owner.close()
    }
  }

  it.each(['fast', 'kill'] as const)(
    'stopped (%s) under load: announcers continue, and every login is stored with its own time when the database is back',
    { timeout: 120_000 },
    async how => {
      await stack.start('authd')
      const load = new Load(0)
      await load.start()
      await eventually('commits', () => load.committed().length > 500)
      await cluster.stop(how)
      await stack.waitForLog('authd', { event: 'store_unavailable' })
      // A slow announcer during the outage: no login waits for commit_wait (800 ms).
      load.stop()
      await eventually('every announcement is answered', () => load.answers.size === load.next)
      const client = await AuthdClient.connect(socketPath())
      const during = Date.now()
      const started = performance.now()
      for (let n = 0; n < 100; n++) {
        expect(await client.announce(loginFrom(`2.${n}`, `12.0.0.${n}`))).toEqual({ verdict: 'queued', id: `2.${n}` })
      }
      expect((performance.now() - started) / 100).toBeLessThan(COMMIT_WAIT_MS / 2)
      await cluster.start()
      await stack.waitForLog('authd', { event: 'store_available' }, 40_000)
      const missing = (grants: Awaited<ReturnType<typeof stored>>): readonly string[] =>
        [...load.answers.keys(), '12.0.0.0', '12.0.0.99'].filter(ip => !grants.has(ip))
      const grants = await eventually('every login with the answer committed or queued is stored', async () => {
        const found = await stored()
        return missing(found).length === 0 && found
      })
      const last = grants.get('12.0.0.0')?.last.getTime() ?? 0
      expect(Math.abs(last - during), 'the time of the login, not of the commit').toBeLessThan(1000)
      expect(await client.announce(loginFrom('3.1', '12.0.1.1'))).toMatchObject({ verdict: 'committed' })
      client.close()
      load.close()
    },
  )

  it('killed six times under load: every login with the answer committed is in the table', {
    timeout: 240_000,
  }, async () => {
    await stack.start('authd')
    const committed: string[] = []
    let next = 0
    for (let round = 0; round < 6; round++) {
      const load = new Load(next)
      await load.start()
      const enough = 1 + ((round * 131) % 700)
      await eventually(`${enough} commits`, () => load.committed().length >= enough)
      await cluster.stop('kill')
      load.stop()
      await eventually('every announcement is answered', () => load.answers.size === load.next - next)
      load.close()
      committed.push(...load.committed())
      next = load.next
      await cluster.start()
      // The log need not contain it: an orphaned backend may have stored the logins in progress,
      // and then no statement failed.
      const client = await AuthdClient.connect(socketPath())
      const isStored = async (): Promise<boolean> => {
        const ip = publicAddress(next)
        next += 1
        const { verdict } = await client.announce(loginFrom(`1.${next}`, ip))
        if (verdict === 'committed') committed.push(ip)
        return verdict === 'committed'
      }
      await eventually('the login is stored', isStored, 40_000)
      client.close()
    }
    const grants = await stored()
    expect(committed.filter(ip => !grants.has(ip))).toEqual([])
  })

  it('starts without a database, stores when the database is available, and flushes at its end', {
    timeout: 120_000,
  }, async () => {
    await cluster.stop()
    const authd = await stack.start('authd')
    const client = await AuthdClient.connect(socketPath())
    expect(await client.announce(loginFrom('1.1', '12.0.0.1'))).toMatchObject({ verdict: 'queued' })
    const [ending] = await Promise.all([authd.stop(10_000), cluster.start()])
    expect(ending.code).toBe(0)
    expect((await stored()).has('12.0.0.1')).toBe(true)
    client.close()
  })

  it('frozen: an announcer gets the answer queued after commit_wait, and the login is stored later', {
    timeout: 120_000,
  }, async () => {
    await stack.start('authd')
    const client = await AuthdClient.connect(socketPath())
    await client.announce(loginFrom('1.0', '12.0.0.1'))
    const owner = openDatabase({ ...ownerConnection(), applicationName: 'tests', max: 1 })
    const thawed = Promise.withResolvers<void>()
    const lock = owner.transaction(async session => {
      await session.script('LOCK TABLE grants IN ACCESS EXCLUSIVE MODE')
      await thawed.promise
    })
    await eventually('the lock is held', async () => {
      const started = performance.now()
      const answer = await client.announce(loginFrom('1.1', '12.0.0.2'))
      return answer.verdict === 'queued' && performance.now() - started < 1500
    })
    thawed.resolve()
    await lock
    await owner.close()
    await eventually('the login is stored', async () => (await stored()).has('12.0.0.2'))
    client.close()
  })
})
