// TLS fronts side by side in one run: sslwrap, the installed fronts of bench/peers/tls-peers.ts,
// and a bare Node.js server, with the same certificate before the same server. Compare ratios
// within one run only. `node bench/tls.ts [ROUNDS]` needs gcc and libssl-dev, because the clients
// and the server behind the fronts are a C program, so that they are not the bottleneck.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { availableParallelism, tmpdir } from 'node:os'
import { createServer } from 'node:tls'
import { versionHere } from './debian-programs.ts'
import { makeCertificate, TLS_PEERS } from './peers/tls-peers.ts'
import { cpuOf, familyOf } from './process-family.ts'
import { BenchReport, type MeasuredProgram } from './report/report.ts'

const SELF = new URL(import.meta.url).pathname
const LAUNCH = new URL('../bin/sslwrap', import.meta.url).pathname
const [WORKERS, CLIENTS, HANDSHAKES] = [2, 16, 3000]
const [STREAMS, STREAM_OCTETS, IDLE] = [8, 50_000_000, 1000]

/** Figures of one front; each list has one entry a round. */
type Figures = Record<
  'full' | 'rate' | 'resumed' | 'bulk' | 'bulkCpu' | 'idle' | 'tickets' | 'fullLoad' | 'bulkLoad',
  number[]
>
type Front = MeasuredProgram & { readonly port: number; readonly pid: number; readonly figures: Figures }
type Kind = 'full' | 'resumed' | 'bulk' | 'idle'

/** The smallest TLS proxy with Node.js. Its cost is the lower bound for sslwrap. */
function bareNode(directory: string, port: string, backend: string): void {
  const [cert, key] = ['crt', 'key'].map(name => readFileSync(`${directory}/tls.${name}`))
  const ticketKeys = readFileSync(`${directory}/tickets`)
  const server = createServer({ cert, key, ticketKeys, allowHalfOpen: true, noDelay: true }, client => {
    const behind = createConnection({ port: Number(backend), host: '127.0.0.1', allowHalfOpen: true, noDelay: true })
    client.on('error', () => behind.destroy())
    behind.on('error', () => client.destroy())
    client.pipe(behind)
    behind.pipe(client)
  })
  server.listen({ port: Number(port), host: '127.0.0.1', reusePort: true })
}

async function compare(rounds: number): Promise<void> {
  const directory = mkdtempSync(`${tmpdir()}/tls-bench-`)
  chmodSync(directory, 0o755)
  const processes: ChildProcess[] = []
  try {
    const load = buildLoad(directory)
    const fronts = await startAll(directory, load, processes)
    const report = new BenchReport('tls')
    // Measured before the loads, because memory that the loads leave unused would serve the idle
    // connections.
    for (const front of fronts) {
      await measure(load, front, 'full', HANDSHAKES)
      front.figures.idle.push(await memoryPerIdle(load, front))
    }
    // One more round as a warm-up, so that the compiler and the memory are in the state of a server
    // that has run for a minute.
    for (let round = 0; round <= rounds; round++) {
      for (const front of fronts) await oneRound(load, front, round > 0)
    }
    describe(report, fronts)
    report.finish()
  } finally {
    for (const process of processes) process.kill('SIGTERM')
    await Promise.all(processes.map(child => child.exitCode ?? child.signalCode ?? once(child, 'exit')))
    rmSync(directory, { recursive: true })
  }
}

async function oneRound(load: string, { name, figures, ...front }: Front, counts: boolean): Promise<void> {
  const full = await measure(load, front, 'full', HANDSHAKES)
  const resumed = await measure(load, front, 'resumed', HANDSHAKES)
  const bulk = await measure(load, front, 'bulk', STREAM_OCTETS)
  // A front without resumption would look too slow, and one that always resumes, too fast.
  if (full.resumed !== 0 || resumed.resumed !== HANDSHAKES) {
    throw new Error(`${name}: ${full.resumed} and ${resumed.resumed} of ${HANDSHAKES} resumed`)
  }
  if (!counts) return
  figures.full.push(full.cpu / HANDSHAKES)
  figures.rate.push(HANDSHAKES / full.seconds)
  figures.resumed.push(resumed.cpu / HANDSHAKES)
  figures.tickets = [full, resumed].map(({ tickets }) => Math.round(tickets / HANDSHAKES))
  figures.fullLoad.push(full.generator)
  figures.bulkLoad.push(bulk.generator)
  figures.bulk.push(bulk.octets / 1e6 / bulk.seconds)
  figures.bulkCpu.push(bulk.cpu / (bulk.octets / 1e6))
}

function buildLoad(directory: string): string {
  const [source, load] = [new URL('tls-load.c', import.meta.url).pathname, `${directory}/tls-load`]
  const built = spawnSync('cc', ['-O2', '-o', load, source, '-lssl', '-lcrypto', '-lpthread'], { encoding: 'utf8' })
  if (built.status !== 0) throw new Error(`cannot build ${source}: apt install gcc libssl-dev\n${built.stderr}`)
  return load
}

async function startAll(directory: string, load: string, processes: ChildProcess[]): Promise<readonly Front[]> {
  const files = makeCertificate(directory)
  writeFileSync(`${directory}/tickets`, randomBytes(48), { mode: 0o600 })
  const start = (command: readonly string[]): ChildProcess => {
    const [file = '', ...args] = command
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    processes.push(child)
    return child
  }
  const behind = Number(await firstLine(start([load, 'server']).stdout))
  // Below the range from which the kernel chooses the clients' ports.
  let port = 20_000 + Math.floor(Math.random() * 10_000)
  const front = async (program: MeasuredProgram, command: readonly string[]): Promise<Front> => {
    const { pid = 0 } = start(command)
    await listening(port)
    const figures = {
      full: [],
      rate: [],
      resumed: [],
      bulk: [],
      bulkCpu: [],
      idle: [],
      tickets: [],
      fullLoad: [],
      bulkLoad: [],
    }
    return { ...program, port: port++, pid, figures }
  }
  const fronts: Front[] = []
  const site = { directory, ...files, behind, workers: WORKERS }
  for (const peer of TLS_PEERS) {
    const version = versionHere(peer)
    if (version === undefined) continue
    const { command, settings } = peer.command(site, port)
    fronts.push(await front({ name: peer.name, version, settings }, command))
  }
  fronts.push(
    await front(
      { name: 'bare node', version: process.version, settings: `${WORKERS} processes, tls.createServer and two pipes` },
      [process.execPath, SELF, 'bare', directory, String(port), String(behind)],
    ),
  )
  const settings = `configured = true
log_level = "warn"
[sslwrap]
user = "64321"
workers = ${WORKERS}
max_per_address = 0
cert = "${files.certificate}"
key = "${files.key}"
[[sslwrap.listener]]
listen = "127.0.0.1:${port}"
backend = "127.0.0.1:${behind}"
preamble = "none"
`
  writeFileSync(`${directory}/auth-relay.toml`, settings)
  const version = spawnSync(LAUNCH, ['--version'], { encoding: 'utf8' }).stdout.trim()
  fronts.push(await front({ name: 'sslwrap', version, settings }, [LAUNCH, '--config', `${directory}/auth-relay.toml`]))
  return fronts
}

/** Microseconds of the front's CPU, and the report of the clients. */
async function measure(
  load: string,
  front: { readonly port: number; readonly pid: number },
  kind: Kind,
  amount: number,
) {
  const clients = String(kind === 'bulk' ? STREAMS : CLIENTS)
  const child = spawn(load, [kind, String(front.port), String(amount), clients], { stdio: ['pipe', 'pipe', 'inherit'] })
  await firstLine(child.stdout)
  const before = cpuOf(front.pid)
  child.stdin.write('go\n')
  const line = await firstLine(child.stdout)
  const [seconds = 0, octets = 0, resumed = 0, tickets = 0, own = 0] = line.split(' ').map(Number)
  const generator = own / (seconds * availableParallelism())
  return { cpu: (cpuOf(front.pid) - before) * 1000, seconds, octets, resumed, tickets, generator }
}

async function memoryPerIdle(load: string, front: Front): Promise<number> {
  const before = memoryOf(front.pid)
  const args = ['idle', String(front.port), String(IDLE), '1']
  const child = spawn(load, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  await firstLine(child.stdout)
  child.stdin.write('go\n')
  await firstLine(child.stdout)
  const open = memoryOf(front.pid)
  child.kill()
  await once(child, 'exit')
  return (open - before) / IDLE
}

/** KB of private memory of the processes. */
const memoryOf = (pid: number): number =>
  familyOf(pid).reduce((sum, member) => {
    const rollup = readFileSync(`/proc/${member}/smaps_rollup`, 'latin1')
    return sum + Number(/^Private_Dirty:\s+(\d+)/m.exec(rollup)?.[1] ?? '0')
  }, 0)

function describe(report: BenchReport, fronts: readonly Front[]): void {
  const ours = fronts.at(-1)
  if (ours === undefined) throw new Error('no front')
  const handshake = { haproxy: { ratio: 1.2 }, stunnel: { ratio: 0.75 } }
  const loads = [
    ['full', 'full handshake', 'µs of CPU', 'less', undefined, handshake],
    ['resumed', 'resumed handshake', 'µs of CPU', 'less', undefined, handshake],
    ['rate', `full handshakes, ${CLIENTS} clients`, 'a second', 'more', 'fullLoad', {}],
    ['bulk', `download, ${STREAMS} streams`, 'MB/s', 'more', 'bulkLoad', { haproxy: { ratio: 0.8 } }],
    ['bulkCpu', `download, ${STREAMS} streams`, 'µs of CPU per MB', 'less', undefined, {}],
    ['idle', `${IDLE} idle connections`, 'KB each', 'less', undefined, {}],
  ] as const
  for (const [key, load, unit, better, generator, goals] of loads) {
    const measured = ({ figures }: Front) => ({
      rounds: figures[key],
      ...(generator === undefined ? {} : { generator: figures[generator] }),
    })
    for (const front of fronts.slice(0, -1)) {
      const goal = Object.entries(goals).find(([peer]) => peer === front.name)?.[1]
      report.add({
        load,
        unit,
        better,
        ours: measured(ours),
        peer: { name: front.name, ...measured(front) },
        ...(goal === undefined ? {} : { goal }),
      })
    }
  }
  report.add({
    load: `${IDLE} idle connections`,
    unit: 'KB each',
    better: 'less',
    ours: { rounds: ours.figures.idle },
    goal: { figure: 60 },
  })
  for (const { name, version, settings } of fronts) report.measured({ name, version, settings })
  const tickets = fronts.map(({ name, figures }) => `${name} ${figures.tickets.join(' and ')}`).join(', ')
  report.note(
    `TLS 1.3, P-256, X25519, AES-128-GCM, ${WORKERS} processes or threads. Tickets after a full and a resumed handshake: ${tickets}.`,
  )
  report.note(
    'Bare Node.js is the smallest program with node:tls. It renews no ticket, has no limits and writes no log.',
  )
}

function firstLine(stream: NodeJS.ReadableStream | null): Promise<string> {
  return new Promise((resolve, reject) => {
    if (stream === null) return reject(new Error('no output'))
    stream.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()))
    stream.once('end', () => reject(new Error('the program ended without output')))
  })
}

async function listening(port: number): Promise<void> {
  const hex = port.toString(16).toUpperCase().padStart(4, '0')
  while (!readFileSync('/proc/net/tcp', 'latin1').includes(`:${hex} 00000000:0000 0A`)) {
    await new Promise(resolve => setTimeout(resolve, 50))
  }
}

async function bareWorkers(words: readonly string[]): Promise<void> {
  const workers = Array.from({ length: WORKERS }, () =>
    spawn(process.execPath, [SELF, 'bare-worker', ...words], { stdio: ['ignore', 'inherit', 'inherit'] }),
  )
  process.on('SIGTERM', () => {
    for (const worker of workers) worker.kill()
  })
  await Promise.all(workers.map(worker => once(worker, 'exit')))
}

const [role, directory = '', port = '', backend = ''] = process.argv.slice(2)
if (role === 'bare') await bareWorkers([directory, port, backend])
else if (role === 'bare-worker') bareNode(directory, port, backend)
else await compare(Number(role ?? '5'))
