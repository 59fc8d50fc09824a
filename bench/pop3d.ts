import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  openSync,
  readdirSync,
  readFileSync,
  utimesSync,
  writeFileSync,
} from 'node:fs'
import { connect, createServer } from 'node:net'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import { buildAll } from '../scripts/build.ts'
import { pathOf } from '../test/harness/describe-with.ts'
import { eventually } from '../test/harness/eventually.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'

/**
 * popup and pop3d beside Debian's dovecot-pop3d tuned to its fastest: the same maildrops, password file, hash and client
 * (bench/pop3/clients.c), both writing their log into a file, in turns within one run, so that the ratios count and the
 * figures do not. Run as root: node bench/pop3d.ts [ROUNDS] [PART OF A LOAD'S NAME]
 */
const OWNER = { uid: 65_534, gid: 65_534 }
// crypt(3), DES, of 'secret': the cheapest hash, the same for both, so that it is not the hash that is measured.
const HASH = 'abNANd1rDfiNc'
const CLIENTS = 16
const rounds = Number(process.argv[2] ?? '3')
const wanted = process.argv[3] ?? ''
const root = new URL('..', import.meta.url).pathname
const directory = temporaryDirectory()

interface Server {
  readonly name: string
  readonly port: number
  readonly child: ChildProcess
  /** Octets that it puts between a message and the termination. */
  readonly extra: number
}

/** Always the same numbers, from 0 up to `limit`: names of files must look as if they came by chance. */
let seed = 1
function next(limit: number): number {
  seed = (Math.imul(seed, 1_103_515_245) + 12_345) & 0x7fffffff
  return (seed >>> 8) % limit
}

/**
 * Names as qmail gives them, with parts that differ as they do in life: with names that only count up, Dovecot's table of names
 * collides and costs it ten times as much. Without sizes in them: Dovecot keeps the sizes in its cache then, and is faster.
 */
function maildrop(user: string, messages: number, message: string): void {
  const home = `${directory.path}/mail/${user}`
  for (const folder of ['', '/new', '/cur', '/tmp']) {
    mkdirSync(`${home}${folder}`, { recursive: true })
    chownSync(`${home}${folder}`, OWNER.uid, OWNER.gid)
  }
  for (let number = 0; number < messages; number += 1) {
    const path = `${home}/cur/${1_700_000_000 + number}.M${next(1_000_000)}P${next(32_768)}.mail.example.org:2,S`
    writeFileSync(path, contentOf(number, message))
    chownSync(path, OWNER.uid, OWNER.gid)
    utimesSync(path, 1_700_000_000 + number, 1_700_000_000 + number)
  }
  for (const folder of ['new', 'cur']) utimesSync(`${home}/${folder}`, 1_700_000_000, 1_700_000_000)
}

const contentOf = (number: number, message: string): string => `Subject: ${number}\n\n${message}`

/** A port that nobody listens on now; Dovecot cannot be told to take any. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

function start(name: string, port: number, extra: number, command: readonly string[]): Server {
  const [file = '', ...args] = command
  const log = openSync(`${directory.path}/${name}.log`, 'a')
  return { name, port, extra, child: spawn(file, args, { stdio: ['ignore', log, log] }) }
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
  const lines = users.map(user => `${user}:${HASH}:${OWNER.uid}:${OWNER.gid}:${directory.path}/mail/${user}:.\n`)
  writeFileSync(`${directory.path}/passwd`, lines.join(''), { mode: 0o600 })
  const settings = `${directory.path}/auth-relay.toml`
  writeFileSync(
    settings,
    `configured = true
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
`,
  )
  return start('auth-relay', port, 2, [process.execPath, `${root}dist/popup.js`, '--config', settings])
}

async function startDovecot(users: readonly string[]): Promise<Server> {
  const port = await freePort()
  const lines = users.map(
    user => `${user}:{CRYPT}${HASH}:${OWNER.uid}:${OWNER.gid}::${directory.path}/mail/${user}::\n`,
  )
  writeFileSync(`${directory.path}/users`, lines.join(''))
  const settings = `${directory.path}/dovecot.conf`
  writeFileSync(
    settings,
    `base_dir = ${directory.path}/dovecot-run
state_dir = ${directory.path}/dovecot-state
log_path = ${directory.path}/dovecot.log
protocols = pop3
listen = 127.0.0.1
ssl = no
disable_plaintext_auth = no
first_valid_uid = 1
first_valid_gid = 1
auth_cache_size = 10M
mail_location = maildir:~/
mail_fsync = never
mail_always_cache_fields = size.virtual size.physical pop3.uidl
maildir_very_dirty_syncs = yes
pop3_no_flag_updates = yes
passdb {
  driver = passwd-file
  args = ${directory.path}/users
}
userdb {
  driver = passwd-file
  args = ${directory.path}/users
}
service pop3-login {
  service_count = 0
  process_min_avail = 2
  client_limit = 5000
  inet_listener pop3 {
    port = ${port}
  }
  inet_listener pop3s {
    port = 0
  }
}
service pop3 {
  service_count = 0
  client_limit = 100
  process_min_avail = 2
  process_limit = 4000
}
service stats {
  unix_listener stats-writer {
    mode = 0666
  }
}
service anvil {
  client_limit = 10000
}
service auth {
  client_limit = 10000
}
mail_max_userip_connections = 0
default_vsz_limit = 0
`,
  )
  const dovecot = pathOf('dovecot')
  if (dovecot === undefined) throw new Error('no dovecot: apt-get install --no-install-recommends dovecot-pop3d')
  return start('dovecot', port, 0, [dovecot, '-F', '-c', settings])
}

/** One command of a session, and the answer that it must get. */
interface Step {
  readonly command: string
  /** How the first line begins. */
  readonly expected?: string
  /** Lines and octets of a multi-line response, termination included. */
  readonly lines?: number
  readonly octets?: number
}

const octetsOnTheWire = (content: string): number => content.length + content.split('\n').length - 1

/** STAT and the whole listings of a maildrop of so many messages. */
const listing = (count: number, message: string): readonly Step[] => {
  const numbers = Array.from({ length: count }, (_, number) => number)
  const total = numbers.reduce((sum, number) => sum + octetsOnTheWire(contentOf(number, message)), 0)
  return [
    { command: 'STAT', expected: `+OK ${count} ${total}\r` },
    { command: 'UIDL', lines: count + 1 },
  ]
}

const retrieve = (number: number, message: string): Step => ({
  command: `RETR ${number + 1}`,
  octets: octetsOnTheWire(contentOf(number, message)) + '.\r\n'.length,
})

const LIST_OF_TEN: Step = { command: 'LIST', lines: 11 }

/** The lines that bench/pop3/clients.c reads. */
function scriptFor(server: Server, { user, steps }: Load): string {
  const all: readonly Step[] = [{ command: `USER ${user}` }, { command: 'PASS secret' }, ...steps, { command: 'QUIT' }]
  return all
    .map(({ command, expected = '+OK', lines, octets }) => {
      const isMultiline = lines !== undefined || octets !== undefined
      const counts = isMultiline ? `${octets === undefined ? 0 : octets + server.extra} ${lines ?? 0}` : '- -'
      return `${counts} ${expected.replace(/\r$/, '').replaceAll(' ', '_')} ${command}\n`
    })
    .join('')
}

/** Processes of a server: the first, and all that descend from it. */
function processesOf(server: Server): readonly number[] {
  const parents = new Map<number, number>()
  for (const entry of readdirSync('/proc').filter(name => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${entry}/stat`, 'latin1').split(') ')[1]?.split(' ')
      parents.set(Number(entry), Number(fields?.[1]))
    } catch {
      // it ended while we looked
    }
  }
  const family = new Set([server.child.pid ?? 0])
  for (let before = -1; before !== family.size; ) {
    before = family.size
    for (const [pid, parent] of parents) if (family.has(parent)) family.add(pid)
  }
  return [...family]
}

/** Memory that belongs to the server alone, its share of what is shared added (PSS), in KB. */
const memoryOf = (server: Server): number =>
  processesOf(server).reduce((sum, pid) => {
    const path = `/proc/${pid}/smaps_rollup`
    return sum + (existsSync(path) ? Number(/^Pss:\s+(\d+)/m.exec(readFileSync(path, 'latin1'))?.[1] ?? '0') : 0)
  }, 0)

/** User and system time of the server's processes and of those that ended, in milliseconds (proc(5)). */
const cpuOf = (server: Server): number =>
  processesOf(server).reduce((sum, pid) => {
    if (!existsSync(`/proc/${pid}/stat`)) return sum
    const fields = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1]?.split(' ').slice(11, 15) ?? []
    return sum + fields.reduce((ticks, field) => ticks + Number(field), 0) * 10
  }, 0)

interface Load {
  readonly name: string
  /** %d is the number of the client. */
  readonly user: string
  readonly steps: readonly Step[]
  readonly clients: number
  readonly sessions: number
}

const LINE = `${'x'.repeat(69)}\n`
const SMALL = LINE.repeat(58)
const LARGE = LINE.repeat(75_000)
const MANY = 10_000

const LOADS: readonly Load[] = [
  {
    name: 'short sessions',
    user: 'user%d',
    steps: [...listing(10, SMALL), LIST_OF_TEN],
    clients: CLIENTS,
    sessions: 4000,
  },
  {
    name: 'downloads of 10 x 4 KB',
    user: 'user%d',
    steps: [...listing(10, SMALL), LIST_OF_TEN, ...Array.from({ length: 10 }, (_, number) => retrieve(number, SMALL))],
    clients: CLIENTS,
    sessions: 2000,
  },
  { name: '10,000 messages, warm', user: 'many', steps: listing(MANY, ''), clients: 1, sessions: 60 },
  { name: 'RETR of 5 MB', user: 'large%d', steps: [retrieve(0, LARGE)], clients: 8, sessions: 320 },
]

/** What bench/pop3/clients.c prints. */
interface Figures {
  readonly perSecond: number
  readonly p50: number
  readonly p99: number
  readonly cpu: number
}

const isFigures = (value: unknown): value is Figures =>
  typeof value === 'object' && value !== null && 'perSecond' in value && 'p99' in value && 'cpu' in value

/** Sessions a second, milliseconds that one takes, and milliseconds of processors for each: the server's and the client's. */
async function measure(server: Server, load: Load) {
  const { clients, sessions } = load
  const cpuBefore = cpuOf(server)
  const child = spawn(client, [`${server.port}`, `${clients}`, `${sessions}`, '0'], {
    stdio: ['pipe', 'pipe', 'inherit'],
  })
  child.stdin.end(scriptFor(server, load))
  const figures: unknown = JSON.parse((await text(child.stdout)) || 'null')
  if (!isFigures(figures)) throw new Error(`${server.name}, ${load.name}: the client found fault`)
  return {
    'sessions/s': figures.perSecond,
    'ms, median': figures.p50 * 1000,
    'ms, p99': figures.p99 * 1000,
    'CPU ms': (cpuOf(server) - cpuBefore) / sessions,
    'client CPU ms': (figures.cpu / sessions) * 1000,
  }
}

/** KB that one more idle session costs, after login. */
async function idleMemory(server: Server): Promise<number> {
  const count = 200
  const before = memoryOf(server)
  const sockets = await Promise.all(
    Array.from({ length: count }, async (_, number) => {
      const socket = connect({ port: server.port, host: '127.0.0.1' })
      for (const line of [`USER user${number % CLIENTS}`, 'PASS secret', 'STAT']) {
        await once(socket, 'data')
        socket.write(`${line}\r\n`)
      }
      await once(socket, 'data')
      return socket
    }),
  )
  const each = (memoryOf(server) - before) / count
  for (const socket of sockets) socket.destroy()
  await pause(500)
  return each
}

const median = (figures: readonly number[]): number =>
  [...figures].sort((a, b) => a - b)[figures.length >> 1] ?? Number.NaN

const client = `${directory.path}/clients`
const compiled = spawnSync('cc', ['-O2', '-o', client, `${root}bench/pop3/clients.c`])
if (compiled.status !== 0) throw new Error(`cc: ${String(compiled.stderr)}: apt-get install gcc libc6-dev`)
await buildAll()
chmodSync(directory.path, 0o755)
const users = [
  ...Array.from({ length: CLIENTS }, (_, number) => `user${number}`),
  'many',
  ...Array.from({ length: 8 }, (_, number) => `large${number}`),
]
for (const user of users) {
  if (user === 'many') maildrop(user, MANY, '')
  else if (user.startsWith('large')) maildrop(user, 1, LARGE)
  else maildrop(user, 10, SMALL)
}
const servers = [await startDovecot(users), await startOurs(users)]
try {
  for (const server of servers) await answers(server)
  const results = new Map<string, number[]>()
  const note = (what: string, { name }: Server, figure: number) => {
    const key = `${what}/${name}`
    results.set(key, [...(results.get(key) ?? []), figure])
  }
  const loads = LOADS.filter(({ name }) => name.includes(wanted))
  const [first] = LOADS
  if (first === undefined) throw new Error('no load')
  // Each is warm when it is measured; memory comes before the loads, which would leave both with room for more.
  for (const server of servers) await measure(server, { ...first, sessions: CLIENTS * 40 })
  for (const server of servers) note('KB per idle login', server, await idleMemory(server))
  for (const load of loads) {
    for (const server of servers) await measure(server, { ...load, sessions: load.clients * 10 })
    for (let round = 0; round < rounds; round += 1) {
      for (const server of servers) {
        for (const [what, figure] of Object.entries(await measure(server, load))) {
          note(`${load.name}, ${what}`, server, figure)
        }
      }
    }
  }
  const names = new Set([...results.keys()].map(key => key.slice(0, key.lastIndexOf('/'))))
  const table = [...names].map(name => {
    const [theirs, ours] = servers.map(server => median(results.get(`${name}/${server.name}`) ?? []))
    if (theirs === undefined || ours === undefined) throw new Error('two servers')
    return { what: name, dovecot: theirs.toFixed(2), 'auth-relay': ours.toFixed(2), ratio: (ours / theirs).toFixed(2) }
  })
  console.table(table)
} finally {
  for (const { child } of servers) {
    child.kill('SIGTERM')
    await once(child, 'exit')
  }
  directory.remove()
}
