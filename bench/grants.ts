import { setTimeout as pause } from 'node:timers/promises'
import { createGrantReader } from '../src/grants/grant-reader.ts'
import type { Login } from '../src/grants/grant-store.ts'
import { createGrantWriter } from '../src/grants/grant-writer.ts'
import type { IpAddress } from '../src/wire/ip-address.ts'
import { grantPolicy } from '../test/harness/postgres/grant-policy.ts'
import { numberedAddress, openBenchDatabase } from './bench-database.ts'
import { cpuOf } from './process-family.ts'
import { BenchReport, type Figure, figureText, quantile } from './report/report.ts'

/**
 * The table of grants alone, with durable commits, on the embedded PostgreSQL: logins a second in
 * batches and one by one. Further figures are the times of a lookup and of a sweep with a million
 * live grants.
 *
 * Run: node bench/grants.ts [SECONDS] [GRANTS]
 */
const [seconds = 4, live = 1_000_000] = process.argv.slice(2).map(Number)
let next = 0
/** The next logins, from addresses that `place` chooses by their number. */
const batchOf = (size: number, place: (n: number) => number): Login[] =>
  Array.from({ length: size }, () => {
    const n = next++
    const ip = numberedAddress(place(n) % 0xffffff)
    const user = `user${n % 5000}`
    return { event: { id: `b.${n}`, ip, daemon: 'popup', tls: true, method: 'pass', user }, at: null }
  })
const newcomers = (n: number): number => n
/** Addresses from the whole range that has a grant. */
const scattered = (n: number): number => (n * 7_919) % live

const { server, database, close } = await openBenchDatabase({ planOnce: true })
const policy = grantPolicy()
const report = new BenchReport('grants')
const figure = (load: string, unit: string, value: number, rest: Partial<Figure> = {}): void => {
  report.add({ load, unit, better: unit === 'ms' ? 'less' : 'more', ours: { rounds: [value] }, ...rest })
  console.error(load, value, unit)
}

try {
  const writer = createGrantWriter(database, policy)
  const reader = createGrantReader(database, policy)

  /** Logins a second over `connections` at once, each batch committed before the next. */
  const writes = async (what: string, size: number, connections: number, place = newcomers): Promise<number> => {
    let done = 0
    const times: number[] = []
    const cpuBefore = cpuOf(server.pid)
    const began = performance.now()
    const end = began + seconds * 1000
    const connection = async (): Promise<void> => {
      while (performance.now() < end) {
        const batch = batchOf(size, place)
        const start = performance.now()
        const outcomes = await writer.record(batch)
        times.push(performance.now() - start)
        done += outcomes.length
      }
    }
    await Promise.all(Array.from({ length: connections }, connection))
    const spent = (cpuOf(server.pid) - cpuBefore) / 1000
    const rate = (done / (performance.now() - began)) * 1000
    if (what === '') return rate
    figure(`${what}, ${size} a batch, ${connections} at once`, 'logins/s', rate)
    figure(`${what}, ${size} a batch, ${connections} at once: batch, p99`, 'ms', quantile(times, 0.99))
    figure(`${what}, ${size} a batch, ${connections} at once`, 'logins for a second of PostgreSQL', done / spent)
    return rate
  }
  await writes('', 100, 1) // warm-up
  const single = await writes('new addresses', 1, 1)
  const hundred = await writes('new addresses', 100, 1)
  const thousand = await writes('new addresses', 1000, 1)
  const two = await writes('new addresses', 100, 2)
  await database.script('TRUNCATE grants, login_event')

  const lookups = async (what: string, addresses: (n: number) => IpAddress): Promise<number> => {
    const times: number[] = []
    const end = performance.now() + seconds * 1000
    for (let n = 0; performance.now() < end; n++) {
      const start = performance.now()
      await reader.lookup(addresses(n))
      times.push(performance.now() - start)
    }
    const p50 = quantile(times, 0.5)
    figure(what, 'queries/s', times.length / seconds)
    figure(`${what}: p99`, 'ms', quantile(times, 0.99))
    return p50
  }
  const empty = await lookups('lookup, empty table', n => numberedAddress(n))
  await database.script(`
    INSERT INTO grants (ip, until, last_auth, daemon, username, tls)
    SELECT '11.0.0.0'::inet + n, now() + make_interval(secs => 1 + 1800.0 * n / ${live}), now(), 'popup', 'user' || n % 5000, true
    FROM generate_series(0, ${live - 1}) n;
    ANALYZE grants`)
  await pause(1000) // The checkpoint of the load begins before the measurement.
  const yes = await lookups(`lookup with a grant, ${live} live`, n => numberedAddress(scattered(n)))
  await lookups(`lookup without a grant, ${live} live`, n => numberedAddress(live + scattered(n)))
  const few = 20_000
  const among = await writes(`again, among ${live} live`, 100, 1, scattered)
  await writes(`new addresses, among ${live} live`, 100, 1, n => live + (n % 10_000_000))

  const sweep = async (what: string, ahead: number): Promise<void> => {
    const start = performance.now()
    const { grants } = await writer.sweep({ now: new Date(Date.now() + ahead * 1000) })
    const took = performance.now() - start
    figure(`sweep, ${what}: ${grants} removed`, 'ms', took)
  }
  await sweep('nothing to do', -60)
  await sweep('a minute of expiry', 62)
  await sweep('half the table', 900)
  await database.script('TRUNCATE grants, login_event; CHECKPOINT')
  await writes('', few, 1, n => n % few)
  const amongFew = await writes(`again, among ${few} live`, 100, 1, n => (n * 7_919) % few)
  report.note(`Batches of 100, compared with single logins: ${figureText(hundred / single)} times the logins a second.`)
  report.note(`Batches of 1000, compared with 100: ${figureText(thousand / hundred)}.`)
  report.note(`Two connections, compared with one, in batches of 100: ${figureText(two / hundred)}.`)
  report.note(`Repeated logins among ${live} live grants, compared with ${few}: ${figureText(among / amongFew)}.`)
  report.note(`Time of a lookup among ${live} grants, compared with an empty table: ${figureText(yes / empty)}.`)
  report.finish()
} finally {
  await close()
}
