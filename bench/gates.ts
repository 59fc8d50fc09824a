import { performance } from 'node:perf_hooks'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { monotonicClock } from '../src/base/clock.ts'
import { STANDBY_REPLIES } from '../src/database/replication.ts'
import { createGrantAdmin } from '../src/grants/grant-admin.ts'
import { openGrantReader } from '../src/grants/grant-reader.ts'
import { createGrantWriter } from '../src/grants/grant-writer.ts'
import { type IpAddress, networkOf } from '../src/wire/ip-address.ts'
import { type Decision, decide } from '../src/wrap/decision.ts'
import { shareDecisions } from '../src/wrap/gate/gate-setup.ts'
import { grantPolicy } from '../test/harness/postgres/grant-policy.ts'
import { numberedAddress, openBenchDatabase } from './bench-database.ts'
import { cpuOf, memoryOf } from './process-family.ts'
import { BenchReport, type Figure, median, quantile } from './report/report.ts'

/**
 * Ten gates on one primary, and the gain and the cost of keeping answers in the gates. Each gate
 * has the connections, the statement and the shared queries of a real one. All ten run in this
 * process, so compare the CPU of the primary.
 *
 * A mail causes two queries about its client, 300 ms apart. Every second client has a grant.
 *
 * Run: node bench/gates.ts [--rounds N] [--seconds N] [--grants N] [--rate N]
 */
const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '3' },
    seconds: { type: 'string', default: '4' },
    grants: { type: 'string', default: '200000' },
    rate: { type: 'string', default: '10000' },
  },
})
const rounds = Number(values.rounds)
const seconds = Number(values.seconds)
const live = Number(values.grants)
const rate = Number(values.rate)
const GATES = 10
/** Number of connections of one gate, as in production. */
const CONNECTIONS = 4
const AGAIN_MS = 300
const OPEN = 32
const TIMEOUT_MS = 5000
/** Milliseconds for which a positive and a negative answer are kept, in the tested variant. */
const KEPT_MS = { yes: 5000, no: 1000 }

type Lookup = (ip: IpAddress | undefined) => Promise<Decision>
type Gate = { readonly ask: Lookup; close(): Promise<void> }

/** Addresses from the whole table; every second one has a grant. */
const scattered = (n: number): IpAddress => numberedAddress(((n * 7_919) % live) + (n % 2 === 0 ? 0 : live))

/** Keeps answers for a time, which no gate of auth-relay does. */
function keepAnswers(ask: Lookup): Lookup {
  const kept = new Map<IpAddress | undefined, { readonly until: number; readonly decision: Decision }>()
  return async ip => {
    const known = kept.get(ip)
    if (known !== undefined && known.until > performance.now()) return known.decision
    const decision = await ask(ip)
    kept.set(ip, { until: performance.now() + (decision.relay ? KEPT_MS.yes : KEPT_MS.no), decision })
    if (kept.size > 100_000) kept.clear()
    return decision
  }
}

const { server, database, close: closeDatabase } = await openBenchDatabase()
const policy = grantPolicy()
const report = new BenchReport('gates')

function openGate(): Gate {
  const { reader, close } = openGrantReader(
    { ...server.connection, statementTimeoutMs: TIMEOUT_MS, max: CONNECTIONS },
    policy,
  )
  const ask = shareDecisions(
    (ip, timeoutMs) =>
      decide(ip, {
        ask: async (asked, signal) => {
          const grant = await reader.lookup(asked, { signal })
          return grant && { until: undefined, login: grant.login ?? undefined, logins: grant.logins }
        },
        refusal: asked => policy.neverList.refusal(asked),
        timeoutMs,
      }),
    { timeoutMs: TIMEOUT_MS, clock: monotonicClock },
  )
  return { ask, close }
}

type Load = {
  readonly perSecond: number
  /** Milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly undecided: number
  /** Microseconds of the primary for a query. */
  readonly cpu: number
  /** Share of the time in which this process, with the gates, was busy. */
  readonly busy: number
}
let next = 0

/**
 * Queries at a fixed rate. A mail server has a limited number of smtpds: with OPEN unanswered
 * queries of a gate, the next queries wait. A machine that is too slow then answers fewer queries
 * instead of all of them late.
 */
async function load(gates: readonly Gate[], perSecond: number): Promise<Load> {
  const times: number[] = []
  let undecided = 0
  const open = new Set<Promise<void>>()
  const ask = (gate: Gate, ip: IpAddress): void => {
    const began = performance.now()
    const answered: Promise<void> = gate.ask(ip).then(decision => {
      times.push(performance.now() - began)
      if (!decision.relay && decision.error !== undefined) undecided += 1
      open.delete(answered)
    })
    open.add(answered)
  }
  const again: { readonly at: number; readonly gate: Gate; readonly ip: IpAddress }[] = []
  const cpuBefore = cpuOf(server.pid)
  const own = process.cpuUsage()
  const began = performance.now()
  let asked = 0
  for (let now = began; now < began + seconds * 1000; now = performance.now()) {
    const due = ((now - began) / 1000) * perSecond
    while (asked < due && open.size < OPEN * gates.length) {
      const second = again[0]
      if (second !== undefined && second.at <= now) {
        again.shift()
        ask(second.gate, second.ip)
      } else {
        const gate = gates[next % gates.length]
        if (gate === undefined) throw new Error('no gate')
        const ip = scattered(next)
        next += 1
        ask(gate, ip)
        again.push({ at: now + AGAIN_MS, gate, ip })
      }
      asked += 1
    }
    await pause(1)
  }
  await Promise.all(open)
  const took = performance.now() - began
  const { user, system } = process.cpuUsage(own)
  return {
    perSecond: (times.length / took) * 1000,
    p50: quantile(times, 0.5),
    p99: quantile(times, 0.99),
    undecided,
    cpu: ((cpuOf(server.pid) - cpuBefore) * 1000) / times.length,
    busy: (user + system) / 1000 / took,
  }
}

/**
 * Time for which a gate keeps a positive answer after a block, and a negative answer after a login.
 */
async function staleness(gate: Gate): Promise<{ readonly yes: number; readonly no: number }> {
  const writer = createGrantWriter(database, policy)
  const admin = createGrantAdmin(database, policy)
  const ip = numberedAddress(live * 2 + next++)
  const login = { event: { id: 'b.1', ip, daemon: 'bench', tls: true, method: 'pass', user: 'ann' }, at: null } as const
  const until = async (relay: boolean): Promise<number> => {
    const began = performance.now()
    while ((await gate.ask(ip)).relay !== relay) await pause(5)
    return performance.now() - began
  }
  await gate.ask(ip)
  await writer.record([login])
  const no = await until(true)
  await admin.block(
    { kind: 'network', network: networkOf(ip, 32) },
    { forSeconds: 60, reason: 'bench', owner: 'bench' },
  )
  return { yes: await until(false), no }
}

/** Microseconds of the primary for one query for the answers of its standbys. */
async function proofCost(): Promise<number> {
  const QUERIES = 2000
  const before = cpuOf(server.pid)
  for (let n = 0; n < QUERIES; n++) await database.query(STANDBY_REPLIES)
  return ((cpuOf(server.pid) - before) * 1000) / QUERIES
}

const figure = (load: string, unit: string, ours: readonly number[], rest: Partial<Figure> = {}): void => {
  report.add({ load, unit, better: unit === 'queries/s' ? 'more' : 'less', ours: { rounds: ours }, ...rest })
  console.error(load, ours.map(value => value.toPrecision(3)).join(' '), unit)
}

const gates: Gate[] = []
try {
  await database.script(`
    INSERT INTO grants (ip, until, last_auth, daemon, username, tls)
    SELECT '11.0.0.0'::inet + n, now() + interval '1 hour', now(), 'popup', 'user' || n % 5000, true
    FROM generate_series(0, ${live - 1}) n;
    ANALYZE grants`)
  const alone = memoryOf(server.pid)
  for (let n = 0; n < GATES; n++) gates.push(openGate())
  await load(gates, rate / 4) // warm-up: connections, plans, caches
  figure('memory of the primary for a gate with its connections', 'KB', [(memoryOf(server.pid) - alone) / GATES])
  const keeping = gates.map(({ ask, close }) => ({ ask: keepAnswers(ask), close }))
  const ten: Load[] = []
  const one: Load[] = []
  const kept: Load[] = []
  const [first] = gates
  if (first === undefined) throw new Error('no gate')
  for (let round = 0; round < rounds; round++) {
    ten.push(await load(gates, rate))
    one.push(await load([first], rate / GATES))
    kept.push(await load(keeping, rate))
  }
  const all = (loads: readonly Load[], pick: (load: Load) => number): readonly number[] => loads.map(pick)
  const generator = all(ten, ({ busy }) => busy)
  const title = `${GATES} gates, ${rate.toLocaleString('en')} queries/s together`
  figure(
    title,
    'queries/s',
    all(ten, ({ perSecond }) => perSecond),
    {
      ours: { rounds: all(ten, ({ perSecond }) => perSecond), generator },
    },
  )
  figure(
    `${title}: p50`,
    'ms',
    all(ten, ({ p50 }) => p50),
  )
  figure(
    `${title}: p99`,
    'ms',
    all(ten, ({ p99 }) => p99),
  )
  figure(
    `${title}: no answer`,
    'queries',
    all(ten, ({ undecided }) => undecided),
    { goal: { figure: 0 } },
  )
  figure(
    `${title}: CPU of the primary`,
    'µs a query',
    all(ten, ({ cpu }) => cpu),
    {
      peer: {
        name: `one gate, ${(rate / GATES).toLocaleString('en')} queries/s`,
        rounds: all(one, ({ cpu }) => cpu),
      },
    },
  )
  figure(
    `${title}, with kept answers: CPU of the primary`,
    'µs a query',
    all(kept, ({ cpu }) => cpu),
    {
      peer: { name: 'without kept answers', rounds: all(ten, ({ cpu }) => cpu) },
    },
  )
  figure('one query for the answers of the standbys: CPU of the primary', 'µs', [await proofCost()])
  const [now, late] = [gates[0], keeping[0]]
  if (now === undefined || late === undefined) throw new Error('no gate')
  const [plain, memory] = [await staleness(now), await staleness(late)]
  const beside = (ms: number) => ({ peer: { name: 'with kept answers', rounds: [ms] } })
  figure('time of a positive answer after a block', 'ms', [plain.yes], beside(memory.yes))
  figure('time of a negative answer after a committed login', 'ms', [plain.no], beside(memory.no))
  report.note(
    `The primary alone spends ${((median(all(ten, ({ cpu }) => cpu)) * rate) / 1e6).toPrecision(2)} cores on ${rate.toLocaleString('en')} queries a second. Kept answers: a positive one for ${KEPT_MS.yes / 1000} s, a negative one for ${KEPT_MS.no / 1000} s. They save at most half, because a mail causes two queries about its client.`,
  )
  report.finish()
} finally {
  await Promise.all(gates.map(gate => gate.close()))
  await closeDatabase()
}
