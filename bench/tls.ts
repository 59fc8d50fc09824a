// TLS fronts side by side: sslwrap, haproxy, stunnel4 and a bare Node.js server with the same certificate in front of the same server, in
// one run. Only ratios of one run count. `node bench/tls.ts [ROUNDS]`; needs no right of root's, and the packages haproxy, stunnel4, gcc and
// libssl-dev: clients and server behind are a C program, so that they are never what is measured.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { tmpdir } from 'node:os'
import { createServer } from 'node:tls'
import { BenchReport } from './report.ts'

const SELF = new URL(import.meta.url).pathname
const LAUNCH = new URL('../bin/sslwrap', import.meta.url).pathname
const [WORKERS, CLIENTS, HANDSHAKES] = [2, 16, 3000]
const [STREAMS, STREAM_OCTETS, IDLE] = [8, 50_000_000, 1000]

/** Figures of one front; each list has one entry a round. */
type Figures = Record<'full' | 'rate' | 'resumed' | 'bulk' | 'bulkCpu' | 'idle' | 'tickets', number[]>
type Front = { readonly name: string; readonly port: number; readonly pid: number; readonly figures: Figures }
type Kind = 'full' | 'resumed' | 'bulk' | 'idle'

/** The least that can be written with Node.js: what it costs is not ours to save. */
function bareNode(directory: string, port: string, backend: string): void {
  const [cert, key] = ['cert', 'key'].map(name => readFileSync(`${directory}/${name}.pem`))
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
    // Before the loads: what they leave behind unused would serve the idle connections.
    for (const front of fronts) {
      await measure(load, front, 'full', HANDSHAKES)
      front.figures.idle.push(await memoryPerIdle(load, front))
    }
    // A round more, which warms up: the just-in-time compiler and the memory are to be those of a server that has run for a minute.
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
  // A front that resumes nothing would look slow for the wrong reason, and one that always does, fast.
  if (full.resumed !== 0 || resumed.resumed !== HANDSHAKES) {
    throw new Error(`${name}: ${full.resumed} and ${resumed.resumed} of ${HANDSHAKES} resumed`)
  }
  if (!counts) return
  figures.full.push(full.cpu / HANDSHAKES)
  figures.rate.push(HANDSHAKES / full.seconds)
  figures.resumed.push(resumed.cpu / HANDSHAKES)
  figures.tickets = [full, resumed].map(({ tickets }) => Math.round(tickets / HANDSHAKES))
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
  const files = { cert: `${directory}/cert.pem`, key: `${directory}/key.pem`, both: `${directory}/both.pem` }
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes']
  const out = ['-keyout', files.key, '-out', files.cert, '-subj', '/CN=bench', '-days', '90']
  spawnSync('openssl', ['req', '-x509', ...curve, ...out])
  chmodSync(files.key, 0o600)
  writeFileSync(files.both, readFileSync(files.cert, 'utf8') + readFileSync(files.key, 'utf8'), { mode: 0o600 })
  writeFileSync(`${directory}/tickets`, randomBytes(48), { mode: 0o600 })
  const start = (command: readonly string[]): ChildProcess => {
    const [file = '', ...args] = command
    const child = spawn(file, args, { stdio: ['ignore', 'pipe', 'inherit'] })
    processes.push(child)
    return child
  }
  const behind = Number(await firstLine(start([load, 'server']).stdout))
  const front = async (name: string, port: number, command: readonly string[]): Promise<Front> => {
    const { pid = 0 } = start(command)
    await listening(port)
    return {
      name,
      port,
      pid,
      figures: { full: [], rate: [], resumed: [], bulk: [], bulkCpu: [], idle: [], tickets: [] },
    }
  }
  // Below the range from which the kernel gives the clients theirs.
  const first = 20_000 + Math.floor(Math.random() * 10_000)
  const [haproxy, stunnel, bare, sslwrap] = [first, first + 1, first + 2, first + 3]
  const haproxyLines = [
    `global\n  nbthread ${WORKERS}\n  maxconn 5000`,
    'defaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1260s\n  timeout server 1260s',
    `listen l\n  bind 127.0.0.1:${haproxy} ssl crt ${files.both} ssl-min-ver TLSv1.2\n  server s 127.0.0.1:${behind}\n`,
  ]
  writeFileSync(`${directory}/haproxy.cfg`, haproxyLines.join('\n'))
  const stunnelLines = [
    'foreground = yes\npid =\ndebug = 3\nsyslog = no\nsocket = l:TCP_NODELAY=1\nsocket = r:TCP_NODELAY=1',
    `[p]\naccept = 127.0.0.1:${stunnel}\nconnect = 127.0.0.1:${behind}\ncert = ${files.cert}\nkey = ${files.key}\n`,
  ]
  writeFileSync(`${directory}/stunnel.conf`, stunnelLines.join('\n'))
  const sslwrapLines = [
    'configured = true\nlog_level = "warn"',
    `[sslwrap]\nuser = "64321"\nworkers = ${WORKERS}\nmax_per_address = 0\ncert = "${files.cert}"\nkey = "${files.key}"`,
    `[[sslwrap.listener]]\nlisten = "127.0.0.1:${sslwrap}"\nbackend = "127.0.0.1:${behind}"\npreamble = "none"\n`,
  ]
  writeFileSync(`${directory}/auth-relay.toml`, sslwrapLines.join('\n'))
  return [
    await front('haproxy', haproxy, ['haproxy', '-db', '-f', `${directory}/haproxy.cfg`]),
    await front('stunnel', stunnel, ['stunnel4', `${directory}/stunnel.conf`]),
    await front('bare node', bare, [process.execPath, SELF, 'bare', directory, String(bare), String(behind)]),
    await front('sslwrap', sslwrap, [LAUNCH, '--config', `${directory}/auth-relay.toml`]),
  ]
}

/** Microseconds of the front's CPU, and what the clients report. */
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
  const [seconds = 0, octets = 0, resumed = 0, tickets = 0] = line.split(' ').map(Number)
  return { cpu: cpuOf(front.pid) - before, seconds, octets, resumed, tickets }
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

/** A process and all its descendants. */
const family = (pid: number): number[] => [
  pid,
  ...readdirSync(`/proc/${pid}/task`).flatMap(task =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number).flatMap(family),
  ),
]

/** Microseconds of user and system time so far, of all threads. */
const cpuOf = (pid: number): number =>
  family(pid).reduce((sum, member) => {
    const fields = readFileSync(`/proc/${member}/stat`, 'latin1')
      .replace(/^.*\) /, '')
      .split(' ')
    return sum + (Number(fields[11]) + Number(fields[12])) * 10_000
  }, 0)

/** Kilobytes that belong to the processes alone. */
const memoryOf = (pid: number): number =>
  family(pid).reduce((sum, member) => {
    const rollup = readFileSync(`/proc/${member}/smaps_rollup`, 'latin1')
    return sum + Number(/^Private_Dirty:\s+(\d+)/m.exec(rollup)?.[1] ?? '0')
  }, 0)

function describe(report: BenchReport, fronts: readonly Front[]): void {
  const [ours, ...peers] = fronts.toReversed()
  if (ours === undefined) throw new Error('no front')
  const handshake = { haproxy: { ratio: 1.2 }, stunnel: { ratio: 0.75 } }
  const loads = [
    ['full', 'full handshake', 'µs of CPU', 'less', handshake],
    ['resumed', 'resumed handshake', 'µs of CPU', 'less', handshake],
    ['rate', `full handshakes, ${CLIENTS} clients`, 'a second', 'more', {}],
    ['bulk', `download, ${STREAMS} streams`, 'MB/s', 'more', { haproxy: { ratio: 0.8 } }],
    ['bulkCpu', `download, ${STREAMS} streams`, 'µs of CPU per MB', 'less', {}],
    ['idle', `${IDLE} idle connections`, 'KB each', 'less', {}],
  ] as const
  for (const [key, load, unit, better, goals] of loads) {
    for (const { name, figures } of peers.toReversed()) {
      const goal = Object.entries(goals).find(([peer]) => peer === name)?.[1]
      report.add({
        load,
        unit,
        better,
        ours: { rounds: ours.figures[key] },
        peer: { name, rounds: figures[key] },
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
  const says = (...[file = '', ...args]: readonly string[]): string => {
    const { stdout, stderr } = spawnSync(file, args, { encoding: 'utf8' })
    return `${stdout}${stderr}`.split('\n')[0] ?? ''
  }
  const certificate = 'the same P-256 certificate'
  report.measured({
    name: 'haproxy',
    version: says('haproxy', '-v'),
    settings: `nbthread ${WORKERS}, mode tcp, ${certificate}`,
  })
  report.measured({
    name: 'stunnel',
    version: says('stunnel4', '-version'),
    settings: `Debian's defaults, TCP_NODELAY, ${certificate}`,
  })
  report.measured({
    name: 'bare node',
    version: process.version,
    settings: `${WORKERS} processes, tls.createServer and two pipes, ${certificate}`,
  })
  report.measured({
    name: 'sslwrap',
    version: says(LAUNCH, '--version'),
    settings: `workers = ${WORKERS}, preamble = "none", ${certificate}`,
  })
  const tickets = fronts.map(({ name, figures }) => `${name} ${figures.tickets.join(' and ')}`).join(', ')
  report.note(
    `TLS 1.3, P-256, X25519, AES-128-GCM, ${WORKERS} processes or threads. Tickets after a full and a resumed handshake: ${tickets}.`,
  )
  report.note(
    'Bare Node.js is the least that can be written with node:tls; it renews no ticket, keeps no limits and writes no log.',
  )
}

function firstLine(stream: NodeJS.ReadableStream | null): Promise<string> {
  return new Promise((resolve, reject) => {
    if (stream === null) return reject(new Error('no output'))
    stream.once('data', (chunk: Buffer) => resolve(chunk.toString().trim()))
    stream.once('end', () => reject(new Error('ended without a word')))
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
