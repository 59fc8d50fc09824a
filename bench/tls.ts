// TLS fronts side by side: sslwrap, haproxy and stunnel4 with the same certificate in front of the same server, in one run.
// Only ratios of one run count. `node bench/tls.ts [ROUNDS]`; needs root's right to nothing, and the packages haproxy and stunnel4.
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { connect, createSecureContext, type TLSSocket } from 'node:tls'

const SELF = new URL(import.meta.url).pathname
const [HANDSHAKES, CLIENTS, BULK_STREAMS, BULK_BYTES, IDLE] = [1500, 32, 8, 60_000_000, 400]

/** Greets, and sends as many bytes as it is asked for. */
function backEnd(): void {
  const chunk = Buffer.alloc(65_536, 0x61)
  const server = createServer({ noDelay: true, allowHalfOpen: true }, socket => {
    socket.on('error', () => {})
    socket.on('end', () => socket.end())
    socket.on('data', (asked: Buffer) => {
      let left = Number(/^BULK (\d+)/.exec(asked.toString('latin1'))?.[1] ?? '0')
      const send = (): void => {
        while (left > 0) {
          const size = Math.min(left, chunk.length)
          left -= size
          if (!socket.write(chunk.subarray(0, size))) {
            socket.once('drain', send)
            return
          }
        }
        socket.end()
      }
      if (left > 0) send()
    })
    socket.write('+OK ready\r\n')
  })
  server.listen(0, '127.0.0.1', () => {
    const address = server.address()
    process.stdout.write(`${typeof address === 'object' ? address?.port : ''}\n`)
  })
}

/** The clients, in a process of their own so that only the front's CPU is counted. */
async function load([kind = '', port = '', count = '']: readonly string[]): Promise<void> {
  // X25519 for all: haproxy and stunnel of Debian 12 know no post-quantum key exchange.
  const secureContext = createSecureContext({ ecdhCurve: 'X25519', minVersion: 'TLSv1.3' })
  let session: Buffer | undefined
  let resumed = 0
  const open = (): TLSSocket =>
    connect({
      port: Number(port),
      host: '127.0.0.1',
      secureContext,
      rejectUnauthorized: false,
      ...(kind === 'resumed' && session !== undefined ? { session } : {}),
    })
  const visit = (bytes: number): Promise<number> =>
    new Promise((resolve, reject) => {
      const socket = open()
      let received = 0
      socket.on('session', ticket => {
        session ??= ticket
      })
      socket.on('error', reject)
      socket.on('data', chunk => {
        if (received === 0) {
          if (socket.isSessionReused()) resumed += 1
          if (bytes > 0) socket.write(`BULK ${bytes}\n`)
          else socket.end()
        }
        received += chunk.length
      })
      socket.on('end', () => socket.end())
      socket.on('close', () => resolve(received))
    })
  await visit(0)
  resumed = 0
  process.stdout.write('ready\n')
  await once(process.stdin, 'data')
  const start = performance.now()
  if (kind === 'bulk') {
    const received = await Promise.all(Array.from({ length: BULK_STREAMS }, () => visit(BULK_BYTES)))
    const seconds = (performance.now() - start) / 1000
    process.stdout.write(`${received.reduce((sum, bytes) => sum + bytes, 0) / 1e6 / seconds}\n`)
  } else if (kind === 'idle') {
    for (let i = 0; i < IDLE; i++) await once(open(), 'data')
    process.stdout.write('open\n')
    await once(process.stdin, 'data')
  } else {
    let left = Number(count)
    await Promise.all(
      Array.from({ length: CLIENTS }, async () => {
        while (left-- > 0) await visit(0)
      }),
    )
    if (kind === 'resumed' && resumed < Number(count)) throw new Error(`${resumed} of ${count} resumed`)
    process.stdout.write(`${Number(count) / ((performance.now() - start) / 1000)}\n`)
  }
  process.exit(0)
}

type Front = { readonly name: string; readonly port: number; readonly process: ChildProcess }
type Figures = Record<'full' | 'resumed' | 'bulk' | 'bulkCpu' | 'idle', number[]>

async function compare(rounds: number): Promise<void> {
  const directory = mkdtempSync(`${tmpdir()}/tls-bench-`)
  chmodSync(directory, 0o755)
  const processes: ChildProcess[] = []
  try {
    const { port, fronts } = await startAll(directory, processes)
    console.log(
      `server behind on ${port}; ${rounds} rounds, medians; ${CLIENTS} clients, ${BULK_STREAMS} streams of ${BULK_BYTES / 1e6} MB`,
    )
    const figures = new Map(
      fronts.map(({ name }): [string, Figures] => [name, { full: [], resumed: [], bulk: [], bulkCpu: [], idle: [] }]),
    )
    for (const front of fronts) await measureIdle(front, figures)
    for (let round = 0; round <= rounds; round++) {
      for (const front of fronts) {
        const row = figures.get(front.name)
        if (row === undefined) continue
        const full = await measure(front, 'full')
        const resumed = await measure(front, 'resumed')
        const bulk = await measure(front, 'bulk')
        // The first round warms up the just-in-time compiler, as a server that has run for a minute.
        if (round === 0) continue
        row.full.push(full.cpu / HANDSHAKES)
        row.resumed.push(resumed.cpu / HANDSHAKES)
        row.bulk.push(bulk.answer)
        row.bulkCpu.push(bulk.cpu / ((BULK_STREAMS * BULK_BYTES) / 1e8))
      }
    }
    report(figures)
  } finally {
    for (const process of processes) process.kill('SIGTERM')
    await Promise.all(processes.map(child => child.exitCode ?? child.signalCode ?? once(child, 'exit')))
    rmSync(directory, { recursive: true })
  }
}

async function startAll(directory: string, processes: ChildProcess[]) {
  const files = { cert: `${directory}/cert.pem`, key: `${directory}/key.pem`, both: `${directory}/both.pem` }
  const curve = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
  const made = [
    'req',
    '-x509',
    ...curve,
    '-nodes',
    '-keyout',
    files.key,
    '-out',
    files.cert,
    '-subj',
    '/CN=bench',
    '-days',
    '9',
  ]
  spawnSync('openssl', made)
  chmodSync(files.key, 0o600)
  writeFileSync(files.both, readFileSync(files.cert, 'utf8') + readFileSync(files.key, 'utf8'), { mode: 0o600 })
  const start = (command: readonly string[]): ChildProcess => {
    const [file = '', ...args] = command
    const child = spawn(file, args, { stdio: ['pipe', 'pipe', 'pipe'] })
    processes.push(child)
    return child
  }
  const server = start([process.execPath, SELF, 'backend'])
  const port = Number(await firstLine(server.stdout))
  const [haproxyPort, stunnelPort, sslwrapPort] = [port + 1, port + 2, port + 3]
  writeFileSync(
    `${directory}/haproxy.cfg`,
    `global\n  nbthread 2\n  maxconn 5000\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 1260s\n  timeout server 1260s\nlisten l\n  bind 127.0.0.1:${haproxyPort} ssl crt ${files.both} ssl-min-ver TLSv1.2\n  server s 127.0.0.1:${port}\n`,
  )
  writeFileSync(
    `${directory}/stunnel.conf`,
    `foreground = yes\npid =\ndebug = 3\n[p]\naccept = 127.0.0.1:${stunnelPort}\nconnect = 127.0.0.1:${port}\ncert = ${files.cert}\nkey = ${files.key}\n`,
  )
  writeFileSync(
    `${directory}/auth-relay.toml`,
    `configured = true\nlog_level = "warn"\n[sslwrap]\nuser = "64321"\nmax_per_address = 0\ncert = "${files.cert}"\nkey = "${files.key}"\n[[sslwrap.listener]]\nlisten = "127.0.0.1:${sslwrapPort}"\nbackend = "127.0.0.1:${port}"\npreamble = "none"\n`,
  )
  const sslwrap = new URL('../dist/sslwrap.js', import.meta.url).pathname
  const fronts: Front[] = [
    { name: 'haproxy', port: haproxyPort, process: start(['haproxy', '-db', '-f', `${directory}/haproxy.cfg`]) },
    { name: 'stunnel', port: stunnelPort, process: start(['stunnel4', `${directory}/stunnel.conf`]) },
    {
      name: 'sslwrap',
      port: sslwrapPort,
      process: start([process.execPath, sslwrap, '--config', `${directory}/auth-relay.toml`]),
    },
  ]
  for (const { port: own } of fronts) await listening(own)
  return { port, fronts }
}

async function measureIdle(front: Front, figures: Map<string, Figures>): Promise<void> {
  // A first visit makes the front allocate what it needs only once.
  await measure(front, 'full')
  const before = memoryOf(front.process.pid ?? 0)
  const clients = spawn(process.execPath, [SELF, 'load', 'idle', String(front.port)], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  await firstLine(clients.stdout)
  clients.stdin.write('go\n')
  await firstLine(clients.stdout)
  figures.get(front.name)?.idle.push((memoryOf(front.process.pid ?? 0) - before) / IDLE)
  clients.kill()
  await once(clients, 'exit')
}

/** Microseconds of the front's CPU, and what the clients report. */
async function measure(
  front: Front,
  kind: 'full' | 'resumed' | 'bulk',
): Promise<{ readonly cpu: number; readonly answer: number }> {
  const args = [SELF, 'load', kind, String(front.port), String(HANDSHAKES)]
  const clients = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  await firstLine(clients.stdout)
  const before = cpuOf(front.process.pid ?? 0)
  clients.stdin.write('go\n')
  const answer = Number(await firstLine(clients.stdout))
  return { cpu: cpuOf(front.process.pid ?? 0) - before, answer }
}

/** A process and all its descendants. */
const family = (pid: number): number[] => [
  pid,
  ...readdirSync(`/proc/${pid}/task`).flatMap(task =>
    readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').split(' ').filter(Boolean).map(Number).flatMap(family),
  ),
]

/** Microseconds of user and system time so far. */
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

function report(figures: Map<string, Figures>): void {
  const median = (values: readonly number[]): number =>
    values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
  const rows = [
    ['full', 'CPU, µs per full handshake (P-256, TLS 1.3)', [1.2, 0.75]],
    ['resumed', 'CPU, µs per resumed handshake', [1.2, 0.75]],
    ['bulk', 'MB/s with 8 streams', [0.8, undefined]],
    ['bulkCpu', 'CPU, µs per 100 MB', [undefined, undefined]],
    ['idle', 'KB per idle connection', [undefined, undefined]],
  ] as const
  console.log('figure'.padEnd(46), 'haproxy', 'stunnel', 'sslwrap', '/haproxy', '/stunnel')
  for (const [key, title, wanted] of rows) {
    const [haproxy = Number.NaN, stunnel = Number.NaN, sslwrap = Number.NaN] = ['haproxy', 'stunnel', 'sslwrap'].map(
      name => median(figures.get(name)?.[key] ?? []),
    )
    const ratios = [sslwrap / haproxy, sslwrap / stunnel].map(
      (ratio, i) => `${ratio.toFixed(2)}${wanted[i] === undefined ? '' : ` (${wanted[i]})`}`,
    )
    console.log(title.padEnd(46), ...[haproxy, stunnel, sslwrap].map(value => value.toFixed(0).padStart(7)), ...ratios)
  }
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

const [role, ...rest] = process.argv.slice(2)
if (role === 'backend') backEnd()
else if (role === 'load') await load(rest)
else await compare(Number(role ?? '3'))
