import { spawnSync } from 'node:child_process'
import { chmodSync, chownSync, copyFileSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { availableParallelism } from 'node:os'
import { parseArgs } from 'node:util'
import { buildAll } from '../scripts/build.ts'
import { formatSettings, type Overrides } from '../src/auth-relay/text/settings-text.ts'
import { openDatabase } from '../src/database/database.ts'
import { startEmbeddedServer } from '../src/database/embedded-server.ts'
import { migrate } from '../src/database/migrate.ts'
import { formatPolicyRequest } from '../src/wire/services/policy.ts'
import { eventually } from '../test/harness/eventually.ts'
import { testServerAccount } from '../test/harness/postgres/server-account.ts'
import { Program, run } from '../test/harness/processes/program.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'
import { installedVersion, versionHere } from './debian-programs.ts'
import { enginePair } from './engine-pair.ts'
import { makeCertificate, TLS_PEERS } from './peers/tls-peers.ts'
import { cpuOf, familyOf } from './process-family.ts'
import { BenchReport, type Figure } from './report/report.ts'

/**
 * The gate beside tcpserver and beside the design of the original program, with the same small
 * smtpd. The figures are connections a second and the time to the banner, as ratios of one run.
 * Further figures are the queries a second of the policy service and the start in exec mode. A
 * first run with CONNECTIONS clients would show a leak of the gate.
 *
 * Run: node bench/gate.ts [ROUNDS] [SECONDS] [CONNECTIONS] [--engine A,B]
 *
 * --engine measures only the gate with either engine, both beside tcpserver.
 */
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { engine: { type: 'string' } },
})
const [rounds = 5, seconds = 3, connections = 100_000] = positionals.map(Number)
/**
 * The engine of the gate, and the engine of the second gate. Undefined: the setting `auto` holds,
 * and there is no second gate.
 */
const engines = options.engine === undefined ? undefined : enginePair(options.engine)
const CLIENTS = 16
/** The address of bench/gate/clients.c. */
const CLIENT = '127.0.0.2'
/** Most connections of a gate to PostgreSQL. */
const DATABASE_CONNECTIONS = 4
/** Connections of each other gate before the rounds. */
const WARM = 10_000
const root = new URL('..', import.meta.url).pathname
const directory = temporaryDirectory()
const at = (name: string): string => `${directory.path}/${name}`

/** The output of bench/gate/clients.c. `own`: seconds of its CPU. */
type Figures = { perSecond: number; p50: number; p99: number; wrong: number; own: number }
/**
 * `cpu`: microseconds that the server and its children took for one connection, the steadiest
 * figure on a busy machine.
 */
type Load = Figures & { cpu: number; generator: number }
const isFigures = (value: unknown): value is Figures =>
  typeof value === 'object' && value !== null && 'perSecond' in value && 'own' in value

function compile(name: string, ...flags: string[]): void {
  const { status, stderr } = spawnSync('gcc', ['-O2', '-Wall', '-o', at(name), `${root}bench/gate/${name}.c`, ...flags])
  if (status !== 0) throw new Error(`gcc ${name}: ${String(stderr)}: install gcc and libpq-dev`)
}

async function load({ programs, port, word, tls = false }: Server): Promise<Load> {
  const cpu = () => programs.reduce((sum, { pid }) => sum + cpuOf(pid), 0)
  const before = cpu()
  const words = [port, CLIENTS, seconds, word, ...(tls ? ['tls'] : [])]
  const { lines, ending } = await run([at('clients'), ...words.map(String)])
  if (ending?.code !== 0) throw new Error(`clients: ${lines.join(' ')}`)
  const figures: unknown = JSON.parse(lines.join(''))
  if (!isFigures(figures)) throw new Error(lines.join('\n'))
  if (figures.wrong > 0) throw new Error(`${figures.wrong} connections without a banner with the word ${word}`)
  return {
    ...figures,
    cpu: ((cpu() - before) * 1000) / (figures.perSecond * seconds),
    generator: figures.own / (seconds * availableParallelism()),
  }
}

const freePort = (): Promise<number> =>
  new Promise(resolve => {
    const probe = createServer().listen(0, '127.0.0.1', () => {
      const address = probe.address()
      probe.close(() => resolve(address !== null && typeof address === 'object' ? address.port : 0))
    })
  })

const isOpen = (port: number): Promise<boolean> =>
  new Promise(resolve => {
    const probe = connect(port, '127.0.0.1', () => {
      probe.destroy()
      resolve(true)
    }).once('error', () => resolve(false))
  })

for (const [name, ...flags] of [
  ['smtpd'],
  ['sink'],
  ['message'],
  ['clients', '-lssl', '-lcrypto'],
  ['ask-libpq', '-I/usr/include/postgresql', '-lpq'],
] as const)
  compile(name, ...flags)
await buildAll()
const server = await startEmbeddedServer({
  stateDir: at('state'),
  account: testServerAccount,
  socketDirectoryMode: 0o755,
  log: { debug() {}, info() {}, warn() {}, error: console.error },
})
const database = openDatabase({ ...server.connection, applicationName: 'bench' })
await migrate(database, `${root}sql/`)
await database.script(`ALTER ROLE authwrap PASSWORD 'authwrap';
  INSERT INTO grants (ip, until, daemon, username) VALUES ('127.0.0.1', now() + interval '1 day', 'bench', 'ann'), ('${CLIENT}', now() + interval '1 day', 'bench', 'ann')`)
const [host] = server.connection.hosts
if (host === undefined) throw new Error('no database')

// As root the gate and its smtpd have separate accounts, as in production; `together` starts the
// smtpd itself, under its own account.
const isRoot = process.geteuid?.() === 0
const IDS = { gate: 61313, smtpd: 61314, sslwrap: 61315, database: 61316, authd: 61317 } as const
chmodSync(directory.path, 0o755)
mkdirSync(at('cdb'))
if (isRoot) chownSync(at('cdb'), IDS.gate, IDS.gate)
const settings = {
  '': { configured: true },
  database: { dbhost: host.host, dbport: host.port, dbname: server.connection.database, wrap_dbpass: 'authwrap' },
  grants: { grant_loopback: true },
  authd: { usage_socket: '' },
  wrap: {
    policy_listen: [`unix:${at('policy.sock')}`],
    query_listen: [`unix:${at('query.sock')}`],
    tcprules_cdb: at('cdb/relay.cdb'),
    smtpd: [at('smtpd')],
    max_connections: 100,
    ...(isRoot ? { user: `${IDS.gate}`, smtpd_user: `${IDS.smtpd}` } : {}),
  },
}
/** Address of a server, and the word in its banner. */
type Server = {
  readonly programs: readonly Program[]
  readonly port: number
  readonly word: 'relay' | 'local'
  /** Clients speak TLS from the first octet, as on port 465. */
  readonly tls?: boolean
}

/**
 * A gate with these settings. Its log goes to a file, because reading the log line by line would
 * cost this process time, and tcpserver writes no log.
 */
async function startGate(name: string, wrap: Overrides[string], engine = engines?.[0]): Promise<Server> {
  const port = await freePort()
  const chosen = engine === undefined ? {} : { engine }
  const own = { ...settings, wrap: { ...wrap, ...chosen, listen: [`127.0.0.1:${port}`] } }
  writeFileSync(at(`${name}.toml`), formatSettings(own, { head: ['bench'], withDefaults: false }))
  const program = new Program(name, [process.execPath, `${root}dist/wrap.js`, '--config', at(`${name}.toml`)], {
    prefix: ['sh', '-c', 'exec "$@" >"$0" 2>&1', at(`${name}.log`)],
  })
  await program.waitFor('wrap ready', () => readFileSync(at(`${name}.log`), 'utf8').includes('wrap ready'), 30_000)
  return { programs: [program], port, word: 'relay' }
}

/**
 * The whole stack as `auth-relay up` runs it, with its embedded PostgreSQL, authd and the history
 * of relayed mail. Clients connect to the gate, or to sslwrap as on port 465.
 */
async function startStack(): Promise<{ readonly clear: Server; readonly secured: Server }> {
  const [port, tlsPort] = [await freePort(), await freePort()]
  mkdirSync(at('up'))
  chmodSync(at('up'), 0o755)
  const stack: Overrides = {
    '': { configured: true, run_dir: at('up/run'), state_dir: at('up/state'), syslog: false },
    database: { embedded: true, ...(isRoot ? { embedded_user: `${IDS.database}` } : {}) },
    grants: { grant_loopback: true },
    popup: { listen: [] },
    authd: {
      socket: at('up/run/authd.sock'),
      usage_socket: at('up/run/usage.sock'),
      ...(isRoot ? { user: `${IDS.authd}` } : {}),
    },
    wrap: { ...alone, listen: [`127.0.0.1:${port}`], proxy_trust: ['127.0.0.1/32'] },
    sslwrap: {
      workers: tlsSite.workers,
      max_per_address: 0,
      cert: tlsSite.certificate,
      key: tlsSite.key,
      listener: [
        { listen: `127.0.0.1:${tlsPort}`, backend: `127.0.0.1:${port}`, preamble: 'proxy-v2', protocol: 'smtp' },
      ],
      ...(isRoot ? { user: `${IDS.sslwrap}` } : {}),
    },
  }
  writeFileSync(at('up.toml'), formatSettings(stack, { head: ['bench'], withDefaults: false }), { mode: 0o600 })
  const command = [process.execPath, `${root}dist/auth-relay.js`]
  const program = new Program('up', [...command, 'up', '--config', at('up.toml')], {
    prefix: ['sh', '-c', 'exec "$@" >"$0" 2>&1', at('up.log')],
  })
  await eventually(`port ${tlsPort}`, () => isOpen(tlsPort), 60_000)
  const { ending, lines } = await run([...command, 'allow', CLIENT, '--config', at('up.toml')])
  if (ending?.code !== 0) throw new Error(`allow: ${lines.join(' ')}`)
  const programs = [program]
  return { clear: { programs, port, word: 'relay' }, secured: { programs, port: tlsPort, word: 'relay', tls: true } }
}

const TCPSERVER = ['tcpserver', '-HRl', 'bench', '-c', '100', '-b', '512']
async function tcpserver(word: Server['word'], ...words: string[]): Promise<Server> {
  const port = await freePort()
  const program = new Program('tcpserver', [
    ...TCPSERVER,
    ...words.slice(0, -1),
    '127.0.0.1',
    String(port),
    ...(words.at(-1) ?? '').split('|'),
  ])
  return { programs: [program], port, word }
}

const { policy_listen: _policy, query_listen: _query, tcprules_cdb: _cdb, ...alone } = settings.wrap
const oneAccount = { ...alone, smtpd_user: '' }
const tlsSite = { directory: directory.path, ...makeCertificate(directory.path), workers: 2 }
const gate = await startGate('wrap', settings.wrap)
const conninfo = `host=${host.host} port=${host.port} dbname=${server.connection.database} user=authwrap password=authwrap`
const OTHERS = ['front', 'cdb', 'libpq', 'up', 'secured', 'haproxy', 'stunnel'] as const
const OTHER_GATES = ['other', 'otherTogether'] as const
type Name = 'gate' | 'together' | 'bare' | (typeof OTHERS)[number] | (typeof OTHER_GATES)[number]
const servers = new Map<Name, Server>([
  ['bare', await tcpserver('local', at('smtpd'))],
  ['gate', gate],
  ['together', await startGate('together', oneAccount)],
])
if (engines === undefined) {
  servers.set('front', await startGate('front', { ...alone, front: true }))
  servers.set('cdb', await tcpserver('relay', '-x', at('cdb/relay.cdb'), at('smtpd')))
  const { clear, secured } = await startStack()
  servers.set('up', clear)
  servers.set('secured', secured)
  for (const { name, ...peer } of TLS_PEERS) {
    if ((name !== 'haproxy' && name !== 'stunnel') || versionHere(peer) === undefined) continue
    const behind = await tcpserver('relay', '-x', at('cdb/relay.cdb'), at('smtpd'))
    const port = await freePort()
    const { command } = peer.command({ ...tlsSite, behind: behind.port }, port)
    servers.set(name, { programs: [...behind.programs, new Program(name, command)], port, word: 'relay', tls: true })
  }
  servers.set('libpq', await tcpserver('relay', `${at('ask-libpq')}|${conninfo}|${at('smtpd')}`))
} else {
  servers.set('other', await startGate('other', alone, engines[1]))
  servers.set('otherTogether', await startGate('other-together', oneAccount, engines[1]))
}
/**
 * Servers for the messages of the measurement of content: the front, and the same smtpd without a
 * gate.
 */
const contents = {
  front: await startGate('content', { ...alone, smtpd: [at('sink')], front: true }),
  direct: await tcpserver('relay', at('sink')),
}
const contentRates: Record<keyof typeof contents, number[]> = { front: [], direct: [] }
for (const { port } of [...servers.values(), ...Object.values(contents)])
  await eventually(`port ${port}`, () => isOpen(port))

const [gateProgram] = gate.programs
const gatePid = gateProgram?.pid ?? 0
const descriptors = () => readdirSync(`/proc/${gatePid}/fd`).length
const smtpdsOf = (pid: number) => familyOf(pid).filter(member => readProgram(member) === at('smtpd')).length
const runs = new Map<Name, Load[]>([...servers.keys()].map(name => [name, []]))
// First the test for leaks, because a resident gate runs for weeks. It is the warm-up too: the
// compiler of Node.js needs some ten thousand connections.
let total = 0
const driveGate = async () => {
  total += (await load(gate)).perSecond * seconds
}
await driveGate()
// By now the gate has opened all the files that it keeps open, except connections to PostgreSQL.
const before = descriptors() + DATABASE_CONNECTIONS
while (total < connections) await driveGate()
await eventually('the children are reaped', () => smtpdsOf(gatePid) === 0)
await eventually('the descriptors are closed', () => descriptors() <= before)

// As many connections for the other gates, so that no engine has the advantage of a warm compiler.
for (const name of ['together', 'front', 'up', 'secured', ...OTHER_GATES] as const) {
  const other = servers.get(name)
  if (other === undefined) continue
  for (let driven = 0; driven < Math.min(total, WARM); ) driven += (await load(other)).perSecond * seconds
}
for (let round = 0; round < rounds; round++) {
  for (const [name, one] of servers) runs.get(name)?.push(await load(one))
  if (engines === undefined)
    for (const name of ['front', 'direct'] as const) contentRates[name].push(await contentRate(contents[name]))
}
const report = new BenchReport('gate')
type What = 'perSecond' | 'p99' | 'cpu'
const UNITS: Readonly<Record<What, string>> = {
  perSecond: 'connections/s',
  p99: 'µs to the banner, p99',
  cpu: 'µs of CPU a connection',
}
const peerNames: Readonly<Partial<Record<Name, string>>> = {
  bare: 'tcpserver',
  cdb: 'tcpserver with the cdb',
  libpq: 'the original’s design',
  haproxy: 'haproxy + tcpserver with the cdb',
  stunnel: 'stunnel + tcpserver with the cdb',
  gate: 'the gate without the front',
  other: `engine ${engines?.[1]}`,
  otherTogether: `engine ${engines?.[1]}`,
}
/** A service beside another server, with the goal of the ratio. */
function beside(load: string, name: Name, other: Name, what: What, ratio?: number): void {
  const side = (of: Name) => ({
    rounds: (runs.get(of) ?? []).map(one => one[what]),
    generator: (runs.get(of) ?? []).map(({ generator }) => generator),
  })
  report.add({
    load,
    unit: UNITS[what],
    better: what === 'perSecond' ? 'more' : 'less',
    ours: side(name),
    peer: { name: peerNames[other] ?? other, ...side(other) },
    ...(ratio === undefined ? {} : { goal: { ratio } }),
  })
}
if (engines === undefined) {
  const whole = 'whole connection under auth-relay up'
  beside(whole, 'up', 'cdb', 'perSecond', 0.85)
  beside(whole, 'up', 'libpq', 'perSecond', 8)
  for (const what of ['p99', 'cpu'] as const)
    for (const peer of ['cdb', 'libpq'] as const) beside(whole, 'up', peer, what)
  beside('resident gate', 'gate', 'bare', 'perSecond', 0.85)
  beside('resident gate and smtpd, one account', 'together', 'bare', 'perSecond')
  beside('resident gate', 'gate', 'libpq', 'perSecond', 8)
  beside('resident gate', 'gate', 'bare', 'p99', 1.3)
  beside('resident gate', 'gate', 'libpq', 'p99')
  beside('resident gate', 'gate', 'bare', 'cpu')
  beside('resident gate', 'gate', 'libpq', 'cpu')
  beside('gate with the front', 'front', 'gate', 'perSecond', 0.7)
  beside('gate with the front', 'front', 'gate', 'p99')
  beside('gate with the front', 'front', 'gate', 'cpu')
  for (const peer of ['haproxy', 'stunnel'] as const)
    if (servers.has(peer))
      for (const what of ['perSecond', 'p99', 'cpu'] as const)
        beside('port 465 under auth-relay up', 'secured', peer, what)
  report.add({
    load: 'content of messages through the front, one connection',
    unit: 'MB/s',
    better: 'more',
    ours: { rounds: contentRates.front },
    peer: { name: 'tcpserver', rounds: contentRates.direct },
    goal: { figure: 500 },
  })
  beside('tcprules cdb', 'cdb', 'bare', 'perSecond', 0.95)
  beside('tcprules cdb', 'cdb', 'bare', 'p99')
  beside('tcprules cdb', 'cdb', 'bare', 'cpu')
  report.add({
    load: 'policy service, one connection',
    unit: 'queries/s',
    better: 'more',
    ours: { rounds: [await policyQueries()] },
    goal: { figure: 20_000 },
  })
  report.add(await execModeStart())
} else {
  for (const what of ['perSecond', 'cpu', 'p99'] as const) {
    beside(`resident gate, engine ${engines[0]}`, 'gate', 'other', what)
    beside(`resident gate and smtpd, one account, engine ${engines[0]}`, 'together', 'otherTogether', what)
  }
  for (const what of ['perSecond', 'cpu'] as const) {
    beside(`resident gate, engine ${engines[0]}`, 'gate', 'bare', what)
    beside(`resident gate, engine ${engines[1]}`, 'other', 'bare', what)
  }
}
report.note(
  `${CLIENTS} clients connect at a time. Every server in this comparison starts the same small smtpd, which is written in C. In the original’s design, tcpserver starts a small program that queries PostgreSQL with libpq, and then the smtpd. tcpserver alone makes no query. The figures under “auth-relay up” include the CPU of its PostgreSQL and authd, those of the original’s design do not. Before the rounds the gate served ${Math.round(total)} connections. After them it had no additional open descriptor, except connections to PostgreSQL, and no child process.`,
)
report.measured({ name: 'tcpserver', version: installedVersion('ucspi-tcp') ?? '', settings: TCPSERVER.join(' ') })
report.measured({
  name: 'wrap',
  version: (await run([process.execPath, `${root}dist/wrap.js`, '--version'])).lines.join(' '),
  settings: readFileSync(at('wrap.toml'), 'utf8'),
})
if (engines === undefined)
  report.measured({
    name: 'auth-relay up',
    version: (await run([process.execPath, `${root}dist/auth-relay.js`, '--version'])).lines.join(' '),
    settings: readFileSync(at('up.toml'), 'utf8'),
  })
report.finish()

for (const { programs } of [...servers.values(), ...Object.values(contents)])
  for (const program of programs.toReversed()) await program.stop()
await database.close()
await server.stop()
directory.remove()

/** MB of content a second over one connection. */
async function contentRate({ port }: Server): Promise<number> {
  const { lines, ending } = await run([at('message'), String(port), String(seconds)])
  if (ending?.code !== 0) throw new Error(`message: ${lines.join(' ')}`)
  return Number(lines[0])
}

function readProgram(pid: number): string | undefined {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')[0]
  } catch {
    return undefined // the process has ended
  }
}

/**
 * Queries about a hundred addresses, with the highest number in flight that the connection accepts.
 */
async function policyQueries(): Promise<number> {
  const COUNT = 100_000
  const addresses = Array.from({ length: 100 }, (_, n) => (n === 0 ? '127.0.0.1' : `192.0.2.${n}`))
  const queries = addresses.map(address =>
    formatPolicyRequest(
      new Map([
        ['request', 'smtpd_access_policy'],
        ['protocol_state', 'RCPT'],
        ['client_address', address],
        ['sender', 'ann@example.org'],
        ['recipient', 'bob@example.net'],
      ]),
    ),
  )
  const socket = connect({ path: at('policy.sock') })
  const started = performance.now()
  const done = new Promise<void>((resolve, reject) => {
    socket.on('error', reject)
    socket.on('close', () => reject(new Error('the policy service closed the connection')))
    // Each answer is one line and an empty line.
    let lineEnds = 0
    socket.on('data', (piece: Buffer) => {
      for (let end = piece.indexOf('\n'); end >= 0; end = piece.indexOf('\n', end + 1)) lineEnds += 1
      if (lineEnds >= COUNT * 2) resolve()
    })
  })
  const batch = queries.join('')
  for (let sent = 0; sent < COUNT; sent += queries.length)
    if (!socket.write(batch)) await new Promise(resolve => socket.once('drain', resolve))
  await done
  socket.destroy()
  return Math.round((COUNT / (performance.now() - started)) * 1000)
}

/**
 * Wall time of exec mode, with its query and the start of the smtpd, beside an empty program, in
 * alternation.
 */
async function execModeStart(): Promise<Figure> {
  writeFileSync(at('empty.mjs'), '')
  copyFileSync('/bin/true', at('true'))
  const measure = (...words: string[]): number => {
    const started = performance.now()
    spawnSync(process.execPath, words, {
      env: { TCPREMOTEIP: '127.0.0.1', WRAP_ASK: `unix:${at('query.sock')}` },
      stdio: 'ignore',
    })
    return performance.now() - started
  }
  const pairs = Array.from({ length: 40 }, () => ({
    empty: measure(at('empty.mjs')),
    execMode: measure(`${root}dist/wrap.cjs`, at('true')),
  }))
  return {
    load: 'exec mode, start',
    unit: 'ms',
    better: 'less',
    ours: { rounds: pairs.map(({ execMode }) => execMode) },
    peer: { name: 'an empty Node.js program', rounds: pairs.map(({ empty }) => empty) },
    goal: { ratio: 1.3 },
  }
}
