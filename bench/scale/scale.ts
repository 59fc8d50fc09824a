import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import type { ConnectionOptions } from '../../src/database/connection-options.ts'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { migrate } from '../../src/database/migrate.ts'
import { int8, type Statement } from '../../src/database/statement.ts'
import { PostgresCluster } from '../../test/harness/postgres/postgres-cluster.ts'
import { cpuOf } from '../process-family.ts'
import { BenchReport, quantile } from '../report/report.ts'
import { addressOf, populate } from './scale-population.ts'
import { type PopHost, Site } from './scale-site.ts'

/**
 * A site with ten million live grants and a million logins an hour, on Debian's PostgreSQL with
 * durable commits. The bench first runs at the rate of the site, then runs the work of an hour as
 * fast as this machine can. It runs the code of authd's queue and of the gate's reader.
 * docs/SCALE.md calculates with the results.
 *
 * Run: node bench/scale/scale.ts [--grants N] [--logins N] [--seconds S] [--stepwise]
 */
const { values: args } = parseArgs({
  options: {
    grants: { type: 'string', default: '10000000' },
    logins: { type: 'string', default: '1000000' },
    seconds: { type: 'string', default: '3' },
    /**
     * Waits for a line on standard input before each part, so that other work on the machine can go
     * first.
     */
    stepwise: { type: 'boolean', default: false },
  },
})
const [grants, logins, seconds] = [Number(args.grants), Number(args.logins), Number(args.seconds)]
/**
 * A million logins an hour keep ten million grants alive if each lives ten hours (`exp_time =
 * 36000`).
 */
const LIFE_SECONDS = 36_000
const HOUR = 3600
const ALRM_TIME = 60
/** Queries of the gate for one login. */
const QUERIES = 1
const IN_FLIGHT = 64
const ROUNDS = 3
const MICROSECONDS = 'µs of database CPU each'
const SETTINGS = {
  fsync: 'on',
  shared_buffers: '2GB',
  max_wal_size: '8GB',
  maintenance_work_mem: '512MB',
  max_connections: '200',
}

const SIZES: Statement<{ grants: number; indexes: number; history: number; historyRows: number }> = {
  row: v.object({ grants: int8, indexes: int8, history: int8, historyRows: int8 }),
  text: `
SELECT pg_table_size('grants') AS grants, pg_indexes_size('grants') AS indexes,
       (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'login_event'::regclass) AS history,
       (SELECT count(*) FROM login_event) AS "historyRows"`,
}
const WAL: Statement<{ octets: number }> = {
  row: v.object({ octets: int8 }),
  text: "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint AS octets",
}
const LIVE: Statement<{ live: number }> = {
  row: v.object({ live: int8 }),
  text: 'SELECT count(*) AS live FROM grants WHERE until > now()',
}

async function one<Row>(database: Database, statement: Statement<Row>): Promise<Row> {
  const { rows } = await database.query(statement)
  const [row] = rows
  if (row === undefined) throw new Error(`no answer: ${statement.text}`)
  return row
}

/** The cost of a part of the work. */
type Cost = {
  readonly seconds: number
  /** Seconds of processor of the database and of this process. */
  readonly database: number
  readonly ours: number
  readonly wal: number
}

class Bench {
  readonly report = new BenchReport('scale')
  readonly #cluster: PostgresCluster
  /** Logins that were answered after grant_wait, before their commit. */
  #queued = 0
  readonly owner: Database
  readonly site: Site

  constructor(cluster: PostgresCluster) {
    this.#cluster = cluster
    this.owner = openDatabase({
      ...accessTo(cluster, 'postgres', PostgresCluster.password),
      applicationName: 'bench',
      max: 2,
      statementTimeoutMs: 600_000,
    })
    this.site = new Site({
      writer: accessTo(cluster, 'pop3authd'),
      reader: accessTo(cluster, 'authwrap'),
      grants,
      lifeSeconds: LIFE_SECONDS,
    })
  }

  async prepare(): Promise<void> {
    await migrate(this.owner, new URL('../../sql/', import.meta.url).pathname)
    for (const role of ['pop3authd', 'authwrap']) await this.owner.script(`ALTER ROLE ${role} PASSWORD '${role}'`)
    this.site.begin()
    const { seconds: took } = await this.cost(() => populate(this.owner, grants, LIFE_SECONDS))
    console.error(`${grants} grants and their logins stored in ${took.toFixed(0)} s`)
  }

  async cost(work: () => Promise<unknown>): Promise<Cost> {
    const pid = Number(readFileSync(`${this.#cluster.directory.path}/data/postmaster.pid`, 'utf8').split('\n')[0])
    const { octets } = await one(this.owner, WAL)
    const [database, ours, began] = [cpuOf(pid), process.cpuUsage(), performance.now()]
    await work()
    const took = (performance.now() - began) / 1000
    const { user, system } = process.cpuUsage(ours)
    return {
      seconds: took,
      database: (cpuOf(pid) - database) / 1000,
      ours: (user + system) / 1e6,
      wal: (await one(this.owner, WAL)).octets - octets,
    }
  }

  less(load: string, unit: string, ...rounds: readonly number[]): void {
    this.report.add({ load, unit, better: 'less', ours: { rounds } })
  }

  /** A rate of operations. This process made the load. */
  rate(load: string, unit: string, found: readonly { readonly count: number; readonly cost: Cost }[]): void {
    const rounds = found.map(({ count, cost }) => count / cost.seconds)
    const generator = found.map(({ cost }) => cost.ours / cost.seconds)
    this.report.add({ load, unit, better: 'more', ours: { rounds, generator } })
  }

  /** Queries of the gate without logins: one after another, and sixteen at once. */
  async queries(): Promise<void> {
    const gate = this.site.openGate(16)
    const lookup = async (client: () => number, isGranted: boolean): Promise<number> => {
      const address = addressOf(client())
      const began = performance.now()
      const found = await gate.reader.lookup(address)
      if ((found !== undefined) !== isGranted) throw new Error(`${address}: ${isGranted ? 'no' : 'a'} grant`)
      return performance.now() - began
    }
    const granted = () => lookup(() => this.site.clientWithGrant(), true)
    const other = () => lookup(() => this.site.clientWithoutGrant(), false)
    const rounds = async (query: () => Promise<number>, many: number) => {
      const found: { readonly times: readonly number[]; readonly cost: Cost }[] = []
      for (let round = 0; round < ROUNDS; round += 1) {
        const times: number[] = []
        const end = performance.now() + seconds * 1000
        const cost = await this.cost(() =>
          Promise.all(
            Array.from({ length: many }, async () => {
              while (performance.now() < end) times.push(await query())
            }),
          ),
        )
        found.push({ times, cost })
      }
      return found
    }
    for (const [what, query] of [
      ['with', granted],
      ['without', other],
    ] as const) {
      const alone = await rounds(query, 1)
      const load = `lookup ${what} a grant, one at a time`
      this.less(load, 'ms, p50', ...alone.map(({ times }) => quantile(times, 0.5)))
      this.less(load, 'ms, p99', ...alone.map(({ times }) => quantile(times, 0.99)))
    }
    const concurrent = await rounds(granted, 16)
    const load = 'lookup with a grant, 16 at a time'
    this.rate(
      load,
      'a second',
      concurrent.map(({ times, cost }) => ({ count: times.length, cost })),
    )
    this.less(load, MICROSECONDS, ...concurrent.map(({ times, cost }) => (cost.database / times.length) * 1e6))
    await gate.close()
  }

  /** A million logins an hour, at a steady rate of 278 a second. */
  async steadyRate(compression: 'off' | 'lz4'): Promise<void> {
    await this.set('wal_compression', compression)
    await this.owner.script('CHECKPOINT')
    const perSecond = 1_000_000 / HOUR
    const host = this.site.openHost()
    const gate = this.site.openGate()
    const [committed, asked]: [number[], number[]] = [[], []]
    const began = performance.now()
    const length = seconds * 5
    const stream = async (rate: number, work: () => Promise<unknown>, times: number[]): Promise<void> => {
      const pending: Promise<void>[] = []
      for (let due = 0; due < rate * length; due += 1) {
        const wait = began + (due / rate) * 1000 - performance.now()
        if (wait > 1) await pause(wait)
        const start = performance.now()
        pending.push(work().then(() => void times.push(performance.now() - start)))
      }
      await Promise.all(pending)
    }
    const cost = await this.cost(() =>
      Promise.all([
        stream(perSecond, () => this.loginAnswered(host), committed),
        stream(perSecond * QUERIES, () => gate.reader.lookup(addressOf(this.site.clientWithGrant())), asked),
      ]),
    )
    this.site.advance(length)
    await host.close()
    await gate.close()
    const load = `a million logins an hour at a steady rate, wal_compression = ${compression}`
    this.less(load, 'ms to committed, p50', quantile(committed, 0.5))
    this.less(load, 'ms to committed, p99', quantile(committed, 0.99))
    this.less(load, 'ms for a query, p99', quantile(asked, 0.99))
    this.less(load, 'database cores', cost.database / cost.seconds)
    this.less(load, 'octets of WAL for a login', cost.wal / committed.length)
  }

  async set(name: string, value: string): Promise<void> {
    await this.owner.script(`ALTER SYSTEM SET ${name} = '${value}'`)
    await this.owner.script('SELECT pg_reload_conf()')
  }

  async loginAnswered(host: PopHost): Promise<void> {
    const { verdict } = await this.site.login(host)
    // A disk that stops for seconds delays commits. authd writes such a login afterwards.
    if (verdict === 'queued') this.#queued += 1
    else if (verdict !== 'committed') throw new Error(`a login was ${verdict}`)
  }

  /**
   * A whole hour as fast as possible: logins at four hosts, queries at two gates, a sweep for each
   * minute.
   */
  async wholeHour(): Promise<void> {
    const hosts = Array.from({ length: 4 }, () => this.site.openHost())
    const gates = [this.site.openGate(), this.site.openGate()]
    const [asked, sweeps]: [number[], number[]] = [[], []]
    let [started, done, queries, swept] = [0, 0, 0, 0]
    const session = async (host: PopHost): Promise<void> => {
      while (started < logins) {
        started += 1
        await this.loginAnswered(host)
        done += 1
        this.site.advance(HOUR / 1_000_000)
      }
    }
    const gate = async ({ reader }: ReturnType<Site['openGate']>): Promise<void> => {
      while (done < logins || queries < QUERIES * done) {
        if (queries >= QUERIES * done) await pause(1)
        else {
          queries += 1
          const start = performance.now()
          await reader.lookup(
            addressOf(queries % 2 === 0 ? this.site.clientWithGrant() : this.site.clientWithoutGrant()),
          )
          asked.push(performance.now() - start)
        }
      }
    }
    const sweep = async (host: PopHost): Promise<void> => {
      const start = performance.now()
      swept += (await host.writer.sweep()).grants
      sweeps.push(performance.now() - start)
    }
    const housekeeper = async (host: PopHost): Promise<void> => {
      const first = this.site.elapsed
      while (done < logins) {
        if (this.site.elapsed - first < (sweeps.length + 1) * ALRM_TIME) await pause(5)
        else await sweep(host)
      }
      await sweep(host)
    }
    const [first] = hosts
    if (first === undefined) throw new Error('no host')
    const before = await one(this.owner, SIZES)
    const cost = await this.cost(() =>
      Promise.all([
        ...hosts.flatMap(host => Array.from({ length: IN_FLIGHT }, () => session(host))),
        ...gates.flatMap(each => Array.from({ length: 4 }, () => gate(each))),
        housekeeper(first),
      ]),
    )
    const after = await one(this.owner, SIZES)
    for (const each of [...hosts, ...gates]) await each.close()
    const load = 'the hour at full speed'
    this.rate(load, 'logins/s, with a query each', [{ count: logins, cost }])
    this.less(load, 'µs of database CPU for a login and a query', (cost.database / logins) * 1e6)
    this.less(load, 'octets of WAL for a login', cost.wal / logins)
    this.less(load, 'ms for a query, p99', quantile(asked, 0.99))
    this.less('sweep of a minute', 'grants removed', swept / sweeps.length)
    this.less('sweep of a minute', 'ms, p50', quantile(sweeps, 0.5))
    this.less('sweep of a minute', 'ms, longest', quantile(sweeps, 1))
    this.less('history', 'octets for a login', before.history / before.historyRows)
    for (const [when, sizes] of [
      ['before', before],
      ['after', after],
    ] as const) {
      this.less(`table of grants ${when} the hour`, 'octets a grant', sizes.grants / grants)
      this.less(`indexes of the table of grants ${when} the hour`, 'octets a grant', sizes.indexes / grants)
    }
  }

  /** Logins alone, from this number of hosts at once, each with 64 in progress. */
  async hosts(counts: readonly number[], suffix = ''): Promise<void> {
    for (const count of counts) {
      const hosts = Array.from({ length: count }, () => this.site.openHost())
      const found: { readonly times: readonly number[]; readonly cost: Cost }[] = []
      for (let round = 0; round < ROUNDS; round += 1) {
        const times: number[] = []
        const end = performance.now() + seconds * 1000
        const session = async (host: PopHost): Promise<void> => {
          while (performance.now() < end) {
            const start = performance.now()
            await this.loginAnswered(host)
            times.push(performance.now() - start)
          }
        }
        const cost = await this.cost(() =>
          Promise.all(hosts.flatMap(host => Array.from({ length: IN_FLIGHT }, () => session(host)))),
        )
        this.site.advance((times.length * HOUR) / 1_000_000)
        found.push({ times, cost })
      }
      for (const host of hosts) await host.close()
      const load = `logins, ${count === 1 ? 'one host' : `${count} hosts`} × ${IN_FLIGHT} in flight${suffix}`
      this.rate(
        load,
        'logins/s',
        found.map(({ times, cost }) => ({ count: times.length, cost })),
      )
      this.less(load, MICROSECONDS, ...found.map(({ times, cost }) => (cost.database / times.length) * 1e6))
      this.less(load, 'ms to committed, p99', ...found.map(({ times }) => quantile(times, 0.99)))
    }
  }

  /** Statements that read the whole table. */
  async wholeTable(): Promise<void> {
    const times: number[] = []
    for (let round = 0; round < ROUNDS; round += 1) {
      times.push((await this.cost(() => this.owner.query(LIVE))).seconds * 1000)
    }
    this.less('count of live grants, as the metrics page asks', 'ms', ...times)
  }

  async close(): Promise<void> {
    this.less('logins of this run answered before their commit', 'logins', this.#queued)
    await this.owner.close()
  }
}

function accessTo(cluster: PostgresCluster, user: string, password = user): ConnectionOptions {
  return {
    hosts: [{ host: '127.0.0.1', port: cluster.port }],
    database: 'postgres',
    user,
    password: { reveal: () => password },
  }
}

const cluster = await PostgresCluster.start({ settings: SETTINGS })
let replica: PostgresCluster | undefined
try {
  const bench = new Bench(cluster)
  bench.report.measured({
    name: 'PostgreSQL',
    version: (await one(bench.owner, { row: v.object({ version: v.string() }), text: 'SELECT version()' })).version,
    settings: Object.entries(SETTINGS)
      .map(([name, value]) => `${name} = ${value}\n`)
      .join(''),
  })
  const step = stepper()
  await step('populate')
  await bench.prepare()
  await step('queries, steady rate, hosts')
  await bench.queries()
  await bench.steadyRate('off')
  await bench.steadyRate('lz4')
  await bench.hosts([1, 2, 4, 8])
  await step('the hour')
  await bench.wholeHour()
  await bench.wholeTable()
  await step('a replica')
  replica = await PostgresCluster.start({ replicaOf: cluster, settings: SETTINGS })
  await bench.set('synchronous_standby_names', '*')
  for (const level of ['local', 'on', 'remote_apply']) {
    await bench.set('synchronous_commit', level)
    await bench.hosts([4], `, with a replica, synchronous_commit = ${level}`)
  }
  await bench.close()
  bench.report.finish()
} finally {
  await replica?.remove()
  await cluster.remove()
  process.stdin.destroy()
}

/** Prints the next step, and waits for a line with --stepwise. */
function stepper(): (what: string) => Promise<void> {
  const lines = args.stepwise ? createInterface({ input: process.stdin })[Symbol.asyncIterator]() : undefined
  return async what => {
    console.error(`next: ${what}`)
    await lines?.next()
  }
}
