import { setTimeout as pause } from 'node:timers/promises'
import { type Database, openDatabase } from '../src/database/database.ts'
import { startEmbeddedServer } from '../src/database/embedded-server.ts'
import { migrate } from '../src/database/migrate.ts'
import { GrantPolicy } from '../src/grants/grant-policy.ts'
import { createGrantReader } from '../src/grants/grant-reader.ts'
import type { Login } from '../src/grants/grant-store.ts'
import { createGrantWriter } from '../src/grants/grant-writer.ts'
import { type IpAddress, NetworkSet, parseIpAddress } from '../src/wire/ip-address.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'

/**
 * The grant table alone, durable, on the embedded PostgreSQL: logins a second in batches and one by one, the time of a
 * lookup and of a sweep among a million live grants. Figures of one run, and their ratios.
 * Run: node bench/grants.ts [SECONDS] [GRANTS]
 */
const [seconds = 4, live = 1_000_000] = process.argv.slice(2).map(Number)
const quiet = { debug: () => {}, info: () => {}, warn: console.warn, error: console.error }

const addressOf = (n: number): IpAddress => {
  const ip = parseIpAddress(`11.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`)
  if (ip === undefined) throw new Error(`no address ${n}`)
  return ip
}
let next = 0
const login = (): Login => {
  const n = next++ % 0xffffff
  return {
    event: { id: `b.${n}`, ip: addressOf(n), daemon: 'popup', tls: true, method: 'pass', user: `user${n % 5000}` },
    at: null,
  }
}
const batchOf = (size: number): Login[] => Array.from({ length: size }, login)
const quantile = (values: readonly number[], q: number): number =>
  [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * q))] ?? Number.NaN
const round = (value: number): number => Number(value.toPrecision(3))

const directory = temporaryDirectory()
const server = await startEmbeddedServer({ stateDir: directory.path, log: quiet })
const database: Database = openDatabase({
  ...server.connection,
  applicationName: 'bench',
  max: 4,
  statementTimeoutMs: 300_000,
})
const policy = new GrantPolicy({
  expTime: 1800,
  maxLifetime: 0,
  ipv6Prefix: 128,
  storeUser: true,
  grantLoopback: false,
  denyPrivate: false,
  neverNets: new NetworkSet([]),
  ownAddresses: () => new Set(),
})
const rows: Record<string, string | number>[] = []

try {
  await migrate(database, new URL('../sql/', import.meta.url).pathname)
  const writer = createGrantWriter(database, policy)
  const reader = createGrantReader(database, policy)

  /** Logins a second over `connections` at once, each batch committed before the next. */
  const writes = async (size: number, connections: number): Promise<number> => {
    let done = 0
    const times: number[] = []
    const began = performance.now()
    const end = began + seconds * 1000
    const connection = async (): Promise<void> => {
      while (performance.now() < end) {
        const batch = batchOf(size)
        const start = performance.now()
        const outcomes = await writer.record(batch)
        times.push(performance.now() - start)
        done += outcomes.length
      }
    }
    await Promise.all(Array.from({ length: connections }, connection))
    const rate = (done / (performance.now() - began)) * 1000
    rows.push({
      what: `record, ${size} a batch, ${connections} at once`,
      'a second': Math.round(rate),
      'p50 ms': round(quantile(times, 0.5)),
      'p99 ms': round(quantile(times, 0.99)),
    })
    return rate
  }
  await writes(100, 1) // warm-up
  rows.length = 0
  const single = await writes(1, 1)
  const hundred = await writes(100, 1)
  const thousand = await writes(1000, 1)
  const two = await writes(100, 2)
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
    const rate = Math.round(times.length / seconds)
    rows.push({ what, 'a second': rate, 'p50 ms': round(p50), 'p99 ms': round(quantile(times, 0.99)) })
    return p50
  }
  const empty = await lookups('lookup, empty table', n => addressOf(n))
  await database.script(`
    INSERT INTO grants (ip, until, last_auth, daemon, username, tls)
    SELECT '11.0.0.0'::inet + n, now() + make_interval(secs => 1 + 1800.0 * n / ${live}), now(), 'popup', 'user' || n % 5000, true
    FROM generate_series(0, ${live - 1}) n;
    ANALYZE grants`)
  await pause(1000) // let the checkpoint of the load begin before, not under, what is measured
  const scattered = (n: number): number => (n * 7_919) % live
  const yes = await lookups(`lookup, yes, ${live} live`, n => addressOf(scattered(n)))
  await lookups(`lookup, no, ${live} live`, n => addressOf(live + scattered(n)))
  const among = await writes(100, 1)

  const sweep = async (what: string, ahead: number): Promise<void> => {
    const start = performance.now()
    const { grants } = await writer.sweep({ now: new Date(Date.now() + ahead * 1000) })
    const took = performance.now() - start
    rows.push({ what: `sweep, ${what}: ${grants} removed`, 'p50 ms': round(took) })
  }
  await sweep('nothing to do', -60)
  await sweep('a minute of expiry', 62)
  await sweep('half the table', 900)
  console.table(rows)
  console.log(`batches of 100 / one by one: ${round(hundred / single)} times the logins a second`)
  console.log(`batches of 1000 / of 100: ${round(thousand / hundred)}`)
  console.log(`two connections / one, batches of 100: ${round(two / hundred)}`)
  console.log(`batches of 100 with ${live} live grants / with few: ${round(among / hundred)}`)
  console.log(`lookup among ${live} / in an empty table: ${round(yes / empty)} times the time`)
} finally {
  await database.close()
  await server.stop()
  directory.remove()
}
