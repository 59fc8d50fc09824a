import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { parseArgs } from 'node:util'
import * as v from 'valibot'
import { buildAll } from '../scripts/build.ts'
import { type Database, openDatabase } from '../src/database/database.ts'
import { type EmbeddedServer, startEmbeddedServer } from '../src/database/embedded-server.ts'
import type { EngineName } from '../src/sockets/engine.ts'
import { eventually } from '../test/harness/eventually.ts'
import { freePort } from '../test/harness/free-port.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'
import { versionHere } from './debian-programs.ts'
import { enginePair } from './engine-pair.ts'
import { courier, dovecot, type PeerCommand, TUNING } from './peers/pop3-peers.ts'
import { makeCertificate, TLS_PEERS } from './peers/tls-peers.ts'
import { LIST_OF_TEN, listing, Pop3Clients, type Run, retrieve, session } from './pop3/clients.ts'
import { HASH, Maildrops, OWNER, SMALL } from './pop3/maildrops.ts'
import { cpuOf, familyOf, memoryOf, ownCpuOf } from './process-family.ts'
import { BenchReport, median } from './report/report.ts'

/**
 * Whole POP3 sessions as on a real site: `auth-relay up` with the embedded PostgreSQL, the grant
 * committed before +OK, history and log on, in clear text and over TLS.
 *
 * The peers are Dovecot, tuned to its fastest; the same Dovecot with one SQL statement for each
 * login, which makes the same grants; stunnel and haproxy before Dovecot; and Courier. All have the
 * same maildrops, passwords, certificate and client (bench/pop3/clients.c), and their rounds
 * alternate within one run. The processor time is that of all processes of a server, PostgreSQL
 * included. Needs root.
 *
 * - `--before DIR`: another built checkout of auth-relay as a further peer.
 * - `--engine A,B`: auth-relay with either engine, and no other peer unless --peers names it.
 * - `--growth`: growth of the cost of a POP3S session with clients, addresses and grants, beside
 *   tuned Dovecot alone.
 */
const { values: options } = parseArgs({
  options: {
    rounds: { type: 'string', default: '5' },
    seconds: { type: 'string', default: '2' },
    warm: { type: 'string', default: '5' },
    load: { type: 'string', default: '' },
    peers: { type: 'string' },
    before: { type: 'string' },
    engine: { type: 'string' },
    growth: { type: 'boolean', default: false },
  },
})
const rounds = Number(options.rounds)
/** Seconds of a round for each server, so that slow servers do not take longer. */
const seconds = Number(options.seconds)
/**
 * Seconds of warm-up of each server before a measured load, because the compiler of Node.js needs
 * some ten thousand sessions.
 */
const warmSeconds = Number(options.warm)
/** Number of idle sessions, large enough that other growth of the heap counts little. */
const IDLE = 1000
/** Seconds from the last login to the measurement of idle sessions; a smoke test does not wait. */
const SETTLING_SECONDS = seconds < 1 ? 0 : 12
const [CLIENTS, ADDRESSES] = [16, 1000]
const [TUNED, GRANTING] = ['dovecot tuned', 'dovecot + grant']
const root = new URL('..', import.meta.url).pathname
const quiet = { debug: () => {}, info: () => {}, warn: console.warn, error: console.error }
/** Ids that no account has, as in the demo. */
const DATABASE_IDS = { uid: 61_196, gid: 61_196 }

type Side = {
  readonly name: string
  readonly version: string
  readonly settings: string
  /** Undefined: the server does not support it. */
  readonly clearPort?: number
  readonly tlsPort?: number
  /** Pids of the server's processes; their descendants are included. */
  readonly pids: () => readonly number[]
}

type Load = {
  readonly name: string
  readonly tls: NonNullable<Run['tls']>
  readonly downloads: boolean
  /** Default: CLIENTS and ADDRESSES. */
  readonly clients?: number
  readonly addresses?: number
  /** Number of rows in the store of grants before the load. */
  readonly grants?: number
  /** Wanted ratios of auth-relay's figure to those of TUNED and of GRANTING. */
  readonly goals?: readonly [number, number]
}

const LOADS: readonly Load[] = [
  { name: 'clear text', tls: 'clear', downloads: false, goals: [2, 3] },
  { name: 'clear text, ten RETR', tls: 'clear', downloads: true, goals: [2, 3] },
  { name: 'POP3S, full handshake', tls: 'full', downloads: false, goals: [1.2, 1.8] },
  { name: 'POP3S, resumed', tls: 'resumed', downloads: false, goals: [1.2, 1.8] },
  { name: 'POP3S, ten RETR', tls: 'full', downloads: true, goals: [1.2, 1.8] },
]

const secured = { tls: 'full', downloads: false } as const
const GROWTH: readonly Load[] = [
  ...[1, 4, 16, 64, 256].map(clients => ({ ...secured, name: `${clients} clients`, clients })),
  ...[1, 10_000].map(addresses => ({ ...secured, name: `16 clients, from ${addresses} addresses`, addresses })),
  ...[100, 10_000, 1_000_000].map(grants => ({ ...secured, name: `16 clients, ${grants} grants before`, grants })),
]
/** The processes of 256 clients need the same number of maildrops. */
const MAILDROPS = options.growth ? 256 : CLIENTS

const SHORT = session('user%d', [...listing(10, SMALL), LIST_OF_TEN])
const DOWNLOADS = session('user%d', [
  ...listing(10, SMALL),
  LIST_OF_TEN,
  ...Array.from({ length: 10 }, (_, number) => retrieve(number, SMALL)),
])

/** The measurements of a load. */
const WHATS = { 'sessions/s': 'more', 'ms of CPU a session': 'less', 'ms to login, p99': 'less' } as const
type What = keyof typeof WHATS
type Result = Readonly<Record<What, number>> & { readonly generator: number; readonly resumed: number }

const cpuOfAll = ({ pids }: Side): number => pids().reduce((sum, pid) => sum + cpuOf(pid), 0)
const portFor = (side: Side, { tls }: Load): number | undefined => (tls === 'clear' ? side.clearPort : side.tlsPort)
const percent = (shares: readonly number[]): string => `${Math.round(median(shares) * 100)} %`

/**
 * The engine of auth-relay, and the engine of the second side. Undefined: the setting `auto` is
 * used, and there is no second side.
 */
const engines = options.engine === undefined ? undefined : enginePair(options.engine)
const wantedPeers = options.peers?.split(',') ?? (engines === undefined ? undefined : [])
const isWanted = (name: string): boolean => wantedPeers?.includes(name) ?? true

const directory = temporaryDirectory()
const children: ChildProcess[] = []
const servers: EmbeddedServer[] = []
const databases: Database[] = []
const clients = new Pop3Clients(directory.path)
await buildAll()
chmodSync(directory.path, 0o755)
const maildrops = new Maildrops(directory.path)
const users = Array.from({ length: MAILDROPS }, (_, number) => `user${number}`)
for (const user of users) maildrops.make(user, 10, SMALL)
const files = makeCertificate(directory.path)
/** The largest number of sessions of one measurement, by side. */
const mostSessions = new Map<string, number>()
const report = new BenchReport(options.growth ? 'growth' : 'pop3s')
try {
  const [ours, wrapped] = await startOurs('auth-relay', root, engines?.[0])
  const others = wantedPeers?.length === 0 ? [] : await startPeers()
  if (engines !== undefined) others.push((await startOurs(`engine ${engines[1]}`, root, engines[1]))[0])
  if (isWanted(wrapped.name)) others.push(wrapped)
  if (options.before !== undefined) others.push(...(await startOurs('before', `${options.before}/`)))
  const sides = [ours, ...others]
  for (const side of sides) for (const port of [side.clearPort, side.tlsPort]) await answers(side.name, port)
  const idle = new Map<Side, number>()
  for (const side of sides) if (side.tlsPort !== undefined) idle.set(side, await idleMemory(side, side.tlsPort))
  const loads = options.growth ? GROWTH : LOADS
  for (const load of loads.filter(({ name }) => name.includes(options.load))) await compare(load, ours, others)
  if (!options.growth) reportMemory(idle, ours, others)
  await requireGrants()
  for (const { name, version, settings } of sides) report.measured({ name, version, settings })
  report.note(
    `${CLIENTS} clients, ${ADDRESSES} addresses, each of which one login uses; ${seconds} seconds a round and load. A session is USER PASS STAT UIDL LIST QUIT on a maildrop of ten messages of 4 KB. auth-relay and "${GRANTING}" commit a grant and a row of history for each login before they answer it; the others grant nothing. TLS 1.3, X25519, AES-128-GCM, an ECDSA P-256 certificate.`,
  )
  if (engines !== undefined) report.note(`The column auth-relay is engine ${engines[0]}.`)
  report.note('haproxy and stunnel relay to the tuned Dovecot and do not pass the address of the client.')
  report.finish()
} finally {
  for (const child of children.reverse()) {
    child.kill('SIGTERM')
    if (child.exitCode === null && child.signalCode === null) await once(child, 'exit')
  }
  for (const database of databases) await database.close()
  for (const server of servers) await server.stop()
  directory.remove()
}

function logOf(name: string): string {
  return `${directory.path}/${name.replace(' + sslwrap', '').replaceAll(' ', '-')}.log`
}

function start(name: string, [file = '', ...args]: readonly string[]): () => readonly number[] {
  const log = openSync(logOf(name), 'a')
  const child = spawn(file, args, { stdio: ['ignore', log, log] })
  children.push(child)
  return () => [child.pid ?? 0]
}

/**
 * `checkout`: where dist/ is, with a slash behind it. The second side is the same with sslwrap
 * before popup.
 */
async function startOurs(name: string, checkout: string, engine?: EngineName): Promise<readonly [Side, Side]> {
  const withEngine = engine === undefined ? '' : `engine = "${engine}"\n`
  const own = `${directory.path}/${name}`
  mkdirSync(own)
  chmodSync(own, 0o755)
  const [clearPort, tlsPort, wrapPort] = [await freePort(), await freePort(), await freePort()]
  const lines = users.map(user => `${user}:${HASH}:${OWNER.uid}:${OWNER.gid}:${maildrops.maildirOf(user)}:.\n`)
  writeFileSync(`${own}/passwd`, lines.join(''), { mode: 0o600 })
  writeFileSync(`${own}/sslhack.pass`, 'bench-password-of-the-preamble\n', { mode: 0o600 })
  const settings = `configured = true
run_dir = "${own}/run"
state_dir = "${own}/state"
syslog = false
[database]
embedded = true
embedded_user = "${DATABASE_IDS.uid}:${DATABASE_IDS.gid}"
[grants]
grant_loopback = true
[popup]
listen = ["127.0.0.1:${clearPort}"]
tls_listen = ["127.0.0.1:${tlsPort}"]
stls_cert = "${files.certificate}"
stls_key = "${files.key}"
checker = "passwd-file"
passwd_file = "${own}/passwd"
login_user = "61191:61191"
hostname = "bench"
max_per_address = 0
max_connections = 5000
max_per_login = 5000
ssl_hack_pass = "${own}/sslhack.pass"
${withEngine}[pop3d]
${withEngine}[sslwrap]
user = "61192:61192"
cert = "${files.certificate}"
key = "${files.key}"
max_per_address = 0
[[sslwrap.listener]]
listen = "127.0.0.1:${wrapPort}"
backend = "127.0.0.1:${clearPort}"
[authd]
user = "61190:61190"
socket = "${own}/run/authd.sock"
usage_socket = "${own}/run/usage.sock"
`
  const file = `${own}/auth-relay.toml`
  writeFileSync(file, settings)
  const program = `${checkout}dist/auth-relay.js`
  const version = spawnSync(process.execPath, [program, '--version'], { encoding: 'utf8' }).stdout.trim()
  const pids = start(name, [process.execPath, '--disable-sigusr1', program, 'up', '--config', file])
  const side = { version, settings, pids }
  return [
    { name, ...side, clearPort, tlsPort },
    { name: `${name} + sslwrap`, ...side, tlsPort: wrapPort },
  ]
}

/**
 * An embedded PostgreSQL like that of auth-relay, with the tables of a site that grants from
 * Dovecot, and the SQL of its userdb.
 */
async function startGrantStore(): Promise<{ readonly userdb: string; readonly query: string; readonly pid: number }> {
  const stateDir = `${directory.path}/grant-store`
  mkdirSync(stateDir)
  chmodSync(stateDir, 0o755)
  const server = await startEmbeddedServer({ stateDir, log: quiet, account: DATABASE_IDS, socketDirectoryMode: 0o755 })
  servers.push(server)
  const database = openDatabase({ ...server.connection, applicationName: 'bench', max: 1 })
  databases.push(database)
  await database.script(`
CREATE TABLE relay (ip inet PRIMARY KEY, login text NOT NULL, until timestamptz NOT NULL);
CREATE TABLE relay_login (at timestamptz NOT NULL, ip inet NOT NULL, login text NOT NULL);
CREATE INDEX ON relay_login (at);`)
  const query = `WITH granted AS (INSERT INTO relay (ip, login, until) VALUES ('%r', '%u', now() + interval '30 minutes') \\
ON CONFLICT (ip) DO UPDATE SET login = excluded.login, until = excluded.until), \\
kept AS (INSERT INTO relay_login (at, ip, login) VALUES (now(), '%r', '%u')) \\
SELECT ${OWNER.uid} AS uid, ${OWNER.gid} AS gid, '${maildrops.maildirOf('%u')}' AS home`
  const { hosts, user, password } = server.connection
  const file = `${stateDir}/dovecot-sql.conf`
  const address = `host=${hosts[0]?.host} user=${user} password=${password?.reveal()} dbname=postgres`
  writeFileSync(file, `driver = pgsql\nconnect = ${address}\nuser_query = ${query}\n`)
  return { userdb: `driver = sql\n  args = ${file}`, query, pid: server.pid }
}

async function startPeers(): Promise<Side[]> {
  const site = {
    directory: directory.path,
    owner: OWNER,
    users,
    hash: HASH,
    maildir: maildrops.maildirOf,
    mailboxes: maildrops.mailboxes,
    sessions: IDLE,
  }
  const sides: Side[] = []
  const add = (
    name: string,
    version: string,
    { command, settings }: PeerCommand,
    ports: Pick<Side, 'clearPort' | 'tlsPort'>,
    more: readonly number[] = [],
  ): Side => {
    const own = start(name, command)
    const side = { name, version, settings, ...ports, pids: () => [...own(), ...more] }
    sides.push(side)
    return side
  }
  const version = versionHere({ debianPackage: 'dovecot-pop3d', installed: true })
  if (version !== undefined) {
    const [clearPort, tlsPort] = [await freePort(), await freePort()]
    const tls = { port: tlsPort, certificate: files.certificate, key: files.key }
    const tuned = add(TUNED, version, dovecot(site, 'tuned', clearPort, TUNING, { tls }), { clearPort, tlsPort })
    for (const { name, command, ...debian } of TLS_PEERS) {
      const front = versionHere(debian)
      if (front === undefined || !isWanted(`${name} + dovecot`)) continue
      if (name !== 'haproxy' && name !== 'stunnel') continue
      const port = await freePort()
      const started = command({ ...tlsSite(), behind: clearPort }, port)
      add(`${name} + dovecot`, front, started, { tlsPort: port }, tuned.pids())
    }
  }
  if (version !== undefined && isWanted(GRANTING) && versionHere({ debianPackage: 'dovecot-pgsql', installed: true })) {
    const [clearPort, tlsPort] = [await freePort(), await freePort()]
    const tls = { port: tlsPort, certificate: files.certificate, key: files.key }
    const { userdb, query, pid } = await startGrantStore()
    const tuning = TUNING.replace(/^auth_cache_size.*\n/m, '')
    const started = dovecot(site, 'granting', clearPort, tuning, { tls, userdb })
    const shown = { ...started, settings: `${started.settings}\nuser_query = ${query}` }
    add(GRANTING, version, shown, { clearPort, tlsPort }, [pid])
  }
  const courierVersion = versionHere({ debianPackage: 'courier-pop', installed: false })
  if (courierVersion !== undefined && isWanted('courier')) {
    const clearPort = await freePort()
    add('courier', courierVersion, courier(site, clearPort), { clearPort })
  }
  return sides
}

function tlsSite() {
  return {
    directory: directory.path,
    ...files,
    workers: 2,
  }
}

async function answers(name: string, port: number | undefined): Promise<void> {
  if (port === undefined) return
  await eventually(
    `${name} listens`,
    async () => {
      const socket = connect({ port, host: '127.0.0.1' })
      try {
        await once(socket, 'connect')
        return true
      } finally {
        socket.destroy()
      }
    },
    60_000,
  )
}

async function measure(side: Side, load: Load, port: number, sessions: number): Promise<Result> {
  mostSessions.set(side.name, Math.max(mostSessions.get(side.name) ?? 0, sessions))
  const before = cpuOfAll(side)
  const steps = load.downloads ? DOWNLOADS : SHORT
  const how = { clients: load.clients ?? CLIENTS, addresses: load.addresses ?? ADDRESSES }
  const figures = await clients.run({ port, sessions, steps, tls: load.tls, ...how }).catch((error: unknown) => {
    const log = readFileSync(logOf(side.name), 'utf8').split('\n').slice(-8).join('\n')
    throw new Error(`${side.name}, ${load.name}: ${error instanceof Error ? error.message : String(error)}\n${log}`)
  })
  return {
    'sessions/s': figures.perSecond,
    'ms of CPU a session': (cpuOfAll(side) - before) / sessions,
    'ms to login, p99': figures.login99 * 1000,
    generator: (figures.cpu * figures.perSecond) / sessions,
    resumed: figures.resumed / sessions,
  }
}

/** One load at every side alternately, after rounds of warm-up. */
async function compare(load: Load, ours: Side, others: readonly Side[]): Promise<void> {
  if (load.grants !== undefined) await fillGrants(load.grants)
  const sides = [ours, ...others].flatMap(side => {
    const port = portFor(side, load)
    return port === undefined ? [] : [{ side, port, sessions: 0, results: [] as Result[] }]
  })
  for (const entry of sides) {
    const least = (load.clients ?? CLIENTS) * 2
    const few = await measure(entry.side, load, entry.port, least * 5)
    const warm = Math.max(least, Math.round(few['sessions/s'] * warmSeconds))
    const { 'sessions/s': perSecond } = await measure(entry.side, load, entry.port, warm)
    entry.sessions = Math.max(least, Math.round(perSecond * seconds))
  }
  const parts = new Map<string, number>()
  let count = 0
  for (let round = 0; round < rounds; round += 1) {
    for (const { side, port, sessions, results } of sides) {
      // Another side can share the processes of auth-relay.
      const before = side === ours ? partsOf(ours) : undefined
      results.push(await measure(side, load, port, sessions))
      if (before === undefined) continue
      count += sessions
      for (const [name, ms] of partsOf(ours)) parts.set(name, (parts.get(name) ?? 0) + ms - (before.get(name) ?? 0))
    }
  }
  noteParts(load, parts, count)
  const [own] = sides
  if (own === undefined) return
  const measured = ({ results }: typeof own, what: What) => ({
    rounds: results.map(result => result[what]),
    generator: results.map(({ generator }) => generator),
  })
  for (const what of Object.keys(WHATS).filter(isWhat)) {
    for (const entry of sides.slice(1)) {
      const goal = goalOf(load, what, entry.side.name)
      report.add({
        load: load.name,
        unit: what,
        better: WHATS[what],
        ours: measured(own, what),
        peer: { name: entry.side.name, ...measured(entry, what) },
        ...(goal === undefined ? {} : { goal: { ratio: goal } }),
      })
    }
  }
  if (load.tls !== 'resumed') return
  const shares = sides.map(({ side, results }) => `${side.name} ${percent(results.map(({ resumed }) => resumed))}`)
  report.note(`Share of sessions that the server resumed: ${shares.join(', ')}.`)
}

function goalOf({ goals, tls, downloads }: Load, what: What, peer: string): number | undefined {
  if (goals === undefined) return undefined
  if (what === 'sessions/s') return peer === TUNED ? goals[0] : peer === GRANTING ? goals[1] : undefined
  if (peer !== TUNED || tls === 'clear') return undefined
  return what === 'ms of CPU a session' ? 0.9 : downloads ? undefined : 1
}

/** The store of auth-relay, as its superuser. */
async function inOurStore<T>(work: (database: Database) => Promise<T>): Promise<T> {
  const state = `${directory.path}/auth-relay/state`
  const password = readFileSync(`${state}/postgresql/superuser.secret`, 'utf8').trim()
  const host = readFileSync(`${state}/database-socket`, 'utf8').trim()
  const database = openDatabase({
    hosts: [{ host, port: 5432 }],
    database: 'pop3authd',
    user: 'postgres',
    password: { reveal: () => password },
    applicationName: 'bench',
    max: 1,
    statementTimeoutMs: 300_000,
  })
  try {
    return await work(database)
  } finally {
    await database.close()
  }
}

/** Fills the store with this number of grants, of addresses that no client has. */
async function fillGrants(count: number): Promise<void> {
  await inOurStore(database =>
    database.script(`
INSERT INTO grants (ip, until, last_auth, first_auth, granted_first, hits, daemon, username, tls)
SELECT '11.0.0.0'::inet + n, now() + interval '1 day', now(), now(), now(), 1, 'popup', 'user', true
FROM generate_series(1, ${count}) AS n ON CONFLICT DO NOTHING;
ANALYZE grants`),
  )
}

/** Milliseconds of processor time by program. */
function partsOf({ pids }: Side): ReadonlyMap<string, number> {
  const parts = new Map<string, number>()
  for (const pid of pids().flatMap(familyOf)) {
    const name = programOf(pid)
    parts.set(name, (parts.get(name) ?? 0) + ownCpuOf(pid))
  }
  return parts
}

/** `popup --login` for a process of auth-relay, `postgres` for one of the database. */
function programOf(pid: number): string {
  try {
    const words = readFileSync(`/proc/${pid}/cmdline`, 'latin1').split('\0')
    const script = words.findIndex(word => word.endsWith('.js'))
    if (script < 0) return /postgres/.test(words[0] ?? '') ? 'postgres' : (words[0]?.replace(/.*\//, '') ?? '')
    const role = words[script + 1] ?? ''
    return `${words[script]?.replace(/.*\/|\.js$/g, '')}${role === '--config' ? '' : ` ${role}`}`.trim()
  } catch {
    return 'ended' // the process ended meanwhile
  }
}

/** `milliseconds`: CPU of each program for this number of sessions. */
function noteParts(load: Load, milliseconds: ReadonlyMap<string, number>, count: number) {
  const parts = [...milliseconds]
    .map(([name, ms]) => [name, ms / count] as const)
    .filter(([, ms]) => ms > 0.005)
    .toSorted(([, a], [, b]) => b - a)
    .map(([name, ms]) => `${name} ${ms.toFixed(2)}`)
  report.note(`CPU of auth-relay by program, ms a session, ${load.name}: ${parts.join(', ')}.`)
}

/** KB that one more idle session over TLS costs in all processes, after login. */
async function idleMemory(side: Side, port: number): Promise<number> {
  const load: Load = { ...secured, name: '' }
  await measure(side, load, port, CLIENTS * 100)
  const memory = (): number => side.pids().reduce((sum, pid) => sum + memoryOf(pid), 0)
  const settle = () => new Promise(resolve => setTimeout(resolve, SETTLING_SECONDS * 1000))
  await settle()
  const before = memory()
  const open = session('user0', listing(10, SMALL)).slice(0, -1)
  const held = await clients.hold({ port, clients: IDLE, steps: open, tls: 'full', addresses: ADDRESSES })
  await settle()
  const each = (memory() - before) / IDLE
  held.kill('SIGKILL')
  await once(held, 'exit')
  return each
}

function reportMemory(idle: ReadonlyMap<Side, number>, ours: Side, others: readonly Side[]): void {
  const own = idle.get(ours)
  if (own === undefined) return
  const load = 'idle POP3S session after login'
  report.add({ load, unit: 'KB', better: 'less', ours: { rounds: [own] }, goal: { figure: 60 } })
  for (const side of others) {
    const theirs = idle.get(side)
    if (theirs === undefined) continue
    report.add({
      load,
      unit: 'KB',
      better: 'less',
      ours: { rounds: [own] },
      peer: { name: side.name, rounds: [theirs] },
    })
  }
}

/**
 * Requires that both stores have a grant of every address that a run used, because a side that
 * stores no grants would be faster.
 */
async function requireGrants(): Promise<void> {
  const count = async (database: Database, text: string): Promise<number> => {
    const { rows } = await database.query({ row: v.object({ n: v.number() }), text })
    return rows[0]?.n ?? 0
  }
  const granted = "SELECT count(*)::int AS n FROM grants WHERE ip << '127.0.0.0/8'"
  const own = await inOurStore(database => count(database, granted))
  const used = usedBy('auth-relay')
  if (own < used) throw new Error(`auth-relay holds grants of ${own} of ${used} addresses`)
  for (const database of databases) {
    const theirs = await count(database, 'SELECT count(*)::int AS n FROM relay')
    const needed = usedBy(GRANTING)
    if (theirs < needed) throw new Error(`${GRANTING} holds grants of ${theirs} of ${needed} addresses`)
  }
}

function usedBy(name: string): number {
  return Math.min(ADDRESSES, mostSessions.get(name) ?? 0)
}

function isWhat(what: string): what is What {
  return what in WHATS
}
