import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, openSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { buildAll } from '../scripts/build.ts'
import { eventually } from '../test/harness/eventually.ts'
import { freePort } from '../test/harness/free-port.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'
import { versionHere } from './debian-programs.ts'
import { POP_PEERS, type PopSite } from './peers/pop3-peers.ts'
import { LIST_OF_TEN, listing, Pop3Clients, retrieve, type Step, session } from './pop3/clients.ts'
import { HASH, LARGE, Maildrops, OWNER, SMALL } from './pop3/maildrops.ts'
import { cpuOf, memoryOf } from './process-family.ts'
import { BenchReport, type MeasuredProgram } from './report/report.ts'

/**
 * popup and pop3d beside the installed POP3 servers of bench/peers/pop3-peers.ts. All have the same
 * maildrops, passwords, hash and client (bench/pop3/clients.c), and each writes its log. The rounds
 * of the servers alternate within one run, so compare the ratios and not the figures.
 *
 * Run as root: node bench/pop3d.ts [ROUNDS] [PART OF A LOAD'S NAME] [SECONDS]
 */
const CLIENTS = 16
/** The peer of the goals. */
const GOAL_PEER = 'dovecot tuned'
const rounds = Number(process.argv[2] ?? '3')
const wanted = process.argv[3] ?? ''
/** Seconds of warm-up of each server before a measured load. */
const WARM_SECONDS = 6
/** Seconds of a round for each server, so that slow servers do not take longer. */
const seconds = Number(process.argv[4] ?? '2.5')
const root = new URL('..', import.meta.url).pathname
const directory = temporaryDirectory()

interface Server extends MeasuredProgram {
  readonly port: number
  readonly child: ChildProcess
}

function start(program: MeasuredProgram, port: number, command: readonly string[]): Server {
  const [file = '', ...args] = command
  const log = openSync(`${directory.path}/${program.name}.log`, 'a')
  return { ...program, port, child: spawn(file, args, { stdio: ['ignore', log, log] }) }
}

async function answers({ name, port }: Server): Promise<void> {
  await eventually(`${name} answers`, async () => {
    const socket = connect({ port, host: '127.0.0.1' })
    try {
      const [greeting] = await once(socket, 'data')
      return String(greeting).startsWith('+OK')
    } finally {
      socket.destroy()
    }
  })
}

async function startOurs(users: readonly string[]): Promise<Server> {
  const port = await freePort()
  const lines = users.map(user => `${user}:${HASH}:${OWNER.uid}:${OWNER.gid}:${maildrops.maildirOf(user)}:.\n`)
  writeFileSync(`${directory.path}/passwd`, lines.join(''), { mode: 0o600 })
  const file = `${directory.path}/auth-relay.toml`
  const settings = `configured = true
run_dir = "${directory.path}/run"
syslog = false
[popup]
listen = ["127.0.0.1:${port}"]
checker = "passwd-file"
passwd_file = "${directory.path}/passwd"
login_user = "nobody"
hostname = "bench"
max_per_address = 0
[authd]
socket = ""
`
  writeFileSync(file, settings)
  const version = spawnSync(process.execPath, [`${root}dist/popup.js`, '--version'], { encoding: 'utf8' }).stdout.trim()
  return start({ name: 'auth-relay', version, settings }, port, [
    process.execPath,
    `${root}dist/popup.js`,
    '--config',
    file,
  ])
}

async function startPeers(site: PopSite): Promise<readonly Server[]> {
  const servers: Server[] = []
  for (const peer of POP_PEERS) {
    const version = versionHere(peer)
    if (version === undefined) continue
    const port = await freePort()
    const { command, settings } = peer.command(site, port)
    servers.push(start({ name: peer.name, version, settings }, port, command))
  }
  return servers
}

interface Load {
  readonly name: string
  /** %d is the number of the client. */
  readonly user: string
  readonly steps: readonly Step[]
  readonly clients: number
  /** At most. */
  readonly sessions: number
  /** The figure of the goal, and the wanted ratio of auth-relay's figure to that of GOAL_PEER. */
  readonly goal: readonly [What, number]
}

/** The measurements of a load. */
const WHATS = { 'sessions/s': 'more', 'ms, median': 'less', 'ms, p99': 'less', 'ms of CPU': 'less' } as const
type What = keyof typeof WHATS

const MANY = 10_000

const LOADS: readonly Load[] = [
  {
    name: 'short sessions',
    user: 'user%d',
    steps: [...listing(10, SMALL), LIST_OF_TEN],
    clients: CLIENTS,
    sessions: 8000,
    goal: ['sessions/s', 2.5],
  },
  {
    name: 'downloads of 10 x 4 KB',
    user: 'user%d',
    steps: [...listing(10, SMALL), LIST_OF_TEN, ...Array.from({ length: 10 }, (_, number) => retrieve(number, SMALL))],
    clients: CLIENTS,
    sessions: 4000,
    goal: ['sessions/s', 1.5],
  },
  {
    name: '10,000 messages, warm',
    user: 'many',
    steps: listing(MANY, ''),
    clients: 1,
    sessions: 60,
    goal: ['ms, median', 0.15],
  },
  {
    name: 'RETR of 5 MB',
    user: 'large%d',
    steps: [retrieve(0, LARGE)],
    clients: 8,
    sessions: 640,
    goal: ['sessions/s', 2],
  },
]

type Result = Readonly<Record<What, number>> & { readonly generator: number }

/**
 * One load at one server; `generator` is the share of its one processor that the client was busy.
 */
async function measure(server: Server, load: Load): Promise<Result> {
  const { sessions } = load
  const pid = server.child.pid ?? 0
  const cpuBefore = cpuOf(pid)
  const figures = await clients.run({
    port: server.port,
    clients: load.clients,
    sessions,
    steps: session(load.user, load.steps),
  })
  return {
    'sessions/s': figures.perSecond,
    'ms, median': figures.p50 * 1000,
    'ms, p99': figures.p99 * 1000,
    'ms of CPU': (cpuOf(pid) - cpuBefore) / sessions,
    generator: (figures.cpu * figures.perSecond) / sessions,
  }
}

const IDLE = 200

/**
 * KB that one more idle session costs after login; undefined if the server refuses that number of
 * sessions.
 */
async function idleMemory(server: Server): Promise<number | undefined> {
  const before = memoryOf(server.child.pid ?? 0)
  let isAccepted = true
  const sockets = await Promise.all(
    Array.from({ length: IDLE }, async (_, number) => {
      const socket = connect({ port: server.port, host: '127.0.0.1' })
      for (const line of [`USER user${number % CLIENTS}`, 'PASS secret', 'STAT', undefined]) {
        const [answer] = await once(socket, 'data')
        if (!String(answer).startsWith('+OK')) isAccepted = false
        if (line !== undefined) socket.write(`${line}\r\n`)
      }
      return socket
    }),
  )
  const each = (memoryOf(server.child.pid ?? 0) - before) / IDLE
  for (const socket of sockets) socket.destroy()
  await pause(500)
  return isAccepted ? each : undefined
}

const clients = new Pop3Clients(directory.path)
await buildAll()
chmodSync(directory.path, 0o755)
const users = [
  ...Array.from({ length: CLIENTS }, (_, number) => `user${number}`),
  'many',
  ...Array.from({ length: 8 }, (_, number) => `large${number}`),
]
const maildrops = new Maildrops(directory.path)
for (const user of users) {
  if (user === 'many') maildrops.make(user, MANY, '')
  else if (user.startsWith('large')) maildrops.make(user, 1, LARGE)
  else maildrops.make(user, 10, SMALL)
}
const site = {
  directory: directory.path,
  owner: OWNER,
  users,
  hash: HASH,
  maildir: maildrops.maildirOf,
  mailboxes: maildrops.mailboxes,
  sessions: IDLE,
}
const peers = await startPeers(site)
const ours = await startOurs(users)
const servers = [...peers, ours]
const report = new BenchReport('pop3d')
try {
  for (const server of servers) await answers(server)
  const [first] = LOADS
  if (first === undefined) throw new Error('no load')
  // Memory is measured before the loads, because unused memory of a load would serve the idle
  // sessions.
  for (const server of servers) await measure(server, { ...first, sessions: CLIENTS * 40 })
  const idle = new Map<Server, number | undefined>()
  for (const server of servers) idle.set(server, await idleMemory(server))
  for (const load of LOADS.filter(({ name }) => name.includes(wanted))) await compare(load)
  for (const peer of peers) {
    const [own, theirs] = [idle.get(ours), idle.get(peer)]
    if (own === undefined || theirs === undefined) continue
    const goal = peer.name === GOAL_PEER ? { goal: { ratio: 0.5 } } : {}
    const sides = { ours: { rounds: [own] }, peer: { name: peer.name, rounds: [theirs] } }
    report.add({ load: 'idle session after login', unit: 'KB', better: 'less', ...sides, ...goal })
  }
  for (const { name, version, settings } of servers) report.measured({ name, version, settings })
  report.note(
    `Without authd. The same ${users.length} maildrops, passwords and DES hash for all; popa3d has them as mbox files, so it finds a message by reading on. Each server has ${seconds} seconds a round and load, with ${CLIENTS} clients; 8 for RETR of 5 MB, 1 for 10,000 messages.`,
  )
  report.note(
    'Courier sets no TCP_NODELAY and has no setting for it, so its downloads wait for acknowledgements that the client delays. Compare its processor time.',
  )
  report.finish()
} finally {
  for (const { child } of servers) {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  directory.remove()
}

/**
 * Warms a server up, because a real server runs for weeks, and the compiler of Node.js needs some
 * ten thousand sessions.
 */
async function warm(server: Server, load: Load): Promise<void> {
  const { 'sessions/s': perSecond } = await measure(server, { ...load, sessions: load.clients * 10 })
  await measure(server, { ...load, sessions: Math.max(load.clients, Math.round(perSecond * WARM_SECONDS)) })
}

/** One load at every server alternately, after a round of warm-up. */
async function compare(load: Load): Promise<void> {
  const results = new Map<Server, Result[]>(servers.map(server => [server, []]))
  const sessions = new Map<Server, number>()
  for (const server of servers) {
    await warm(server, load)
    const { 'sessions/s': perSecond } = await measure(server, { ...load, sessions: load.clients * 10 })
    sessions.set(server, Math.min(load.sessions, Math.max(Math.round(perSecond * seconds), load.clients * 2)))
  }
  for (let round = 0; round < rounds; round += 1) {
    for (const server of servers) {
      results.get(server)?.push(await measure(server, { ...load, sessions: sessions.get(server) ?? load.clients }))
    }
  }
  const side = (server: Server, what: What) => {
    const found = results.get(server) ?? []
    return { rounds: found.map(result => result[what]), generator: found.map(({ generator }) => generator) }
  }
  const [wantedOf, ratio] = load.goal
  for (const what of Object.keys(WHATS).filter(isWhat)) {
    if (what === 'ms, median' && what !== wantedOf) continue
    for (const peer of peers) {
      if (what === 'ms, p99' && peer.name !== GOAL_PEER) continue
      report.add({
        load: load.name,
        unit: what,
        better: WHATS[what],
        ours: side(ours, what),
        peer: { name: peer.name, ...side(peer, what) },
        ...(peer.name === GOAL_PEER && what === wantedOf ? { goal: { ratio } } : {}),
      })
    }
  }
}

function isWhat(what: string): what is What {
  return what in WHATS
}
