import { type ChildProcess, spawn } from 'node:child_process'
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
import { setTimeout as pause } from 'node:timers/promises'
import { buildAll } from '../scripts/build.ts'
import { pathOf } from '../test/harness/describe-with.ts'
import { eventually } from '../test/harness/eventually.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'

/**
 * popup and pop3d beside Debian's dovecot-pop3d tuned to its fastest: the same maildrops, password file, hash and client, in
 * turns within one run, so that the ratios count and the figures do not. Run as root: node bench/pop3d.ts [rounds]
 *
 * No claim rests on the row of 10,000 messages yet: with these settings Dovecot 2.3.19 spends half a second on each such
 * login and writes no dovecot.index.cache, so it is not at its fastest there.
 */
const OWNER = { uid: 65_534, gid: 65_534 }
// crypt(3), DES, of 'secret': the cheapest hash, the same for both, so that it is not the hash that is measured.
const HASH = 'abNANd1rDfiNc'
const CLIENTS = 16
const rounds = Number(process.argv[2] ?? '3')
const root = new URL('..', import.meta.url).pathname
const directory = temporaryDirectory()

interface Server {
  readonly name: string
  readonly port: number
  readonly child: ChildProcess
}

function maildrop(user: string, messages: number, message: string): void {
  const home = `${directory.path}/mail/${user}`
  for (const folder of ['', '/new', '/cur', '/tmp']) {
    mkdirSync(`${home}${folder}`, { recursive: true })
    chownSync(`${home}${folder}`, OWNER.uid, OWNER.gid)
  }
  for (let number = 0; number < messages; number += 1) {
    const content = `Subject: ${number}\n\n${message}`
    const lines = content.split('\n').length - 1
    // As Dovecot names what it delivers: neither server has to open a message to know its size.
    const sizes = `S=${content.length},W=${content.length + lines}`
    const path = `${home}/cur/${1_700_000_000 + number}.M${number}P1.host,${sizes}:2,S`
    writeFileSync(path, content)
    chownSync(path, OWNER.uid, OWNER.gid)
    utimesSync(path, 1_700_000_000 + number, 1_700_000_000 + number)
  }
  for (const folder of ['new', 'cur']) utimesSync(`${home}/${folder}`, 1_700_000_000, 1_700_000_000)
}

/** A port that nobody listens on now; Dovecot cannot be told to take any. */
async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  server.close()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

function start(name: string, port: number, command: readonly string[]): Server {
  const [file = '', ...args] = command
  const log = openSync(`${directory.path}/${name}.log`, 'w')
  return { name, port, child: spawn(file, args, { stdio: ['ignore', log, log] }) }
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
log_level = "error"
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
  return start('auth-relay', port, [process.execPath, `${root}dist/popup.js`, '--config', settings])
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
  process_min_avail = ${CLIENTS}
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
  return start('dovecot', port, [dovecot, '-F', '-c', settings])
}

/** One session: each command after the answer to the one before. Octets received. */
function session(port: number, user: string, commands: readonly string[]): Promise<number> {
  const { promise, resolve, reject } = Promise.withResolvers<number>()
  const lines = [`USER ${user}`, 'PASS secret', ...commands]
  const socket = connect({ port, host: '127.0.0.1', noDelay: true })
  let said = 0
  let octets = 0
  let tail = ''
  let awaitsEnd = '\r\n'
  socket.on('data', (chunk: Buffer) => {
    octets += chunk.length
    tail = (tail + chunk.subarray(-5).toString('latin1')).slice(-5)
    if (!tail.endsWith(awaitsEnd)) return
    if (chunk.length < 200 && chunk.toString('latin1').includes('-ERR'))
      return reject(new Error(chunk.toString('latin1')))
    const line = lines[said++]
    if (line === undefined) return
    awaitsEnd = /^(LIST|UIDL|RETR)/.test(line) ? '\r\n.\r\n' : '\r\n'
    tail = ''
    socket.write(`${line}\r\n`)
  })
  socket.on('end', () => {
    socket.end()
    resolve(octets)
  })
  socket.on('error', reject)
  return promise
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
  readonly user: (client: number) => string
  readonly commands: readonly string[]
  readonly clients: number
  readonly sessions: number
}

const LOADS: readonly Load[] = [
  {
    name: 'short sessions',
    user: client => `user${client}`,
    commands: ['STAT', 'UIDL', 'LIST', 'QUIT'],
    clients: CLIENTS,
    sessions: 2000,
  },
  {
    name: 'downloads of 10 x 4 KB',
    user: client => `user${client}`,
    commands: ['STAT', 'UIDL', 'LIST', ...Array.from({ length: 10 }, (_, number) => `RETR ${number + 1}`), 'QUIT'],
    clients: CLIENTS,
    sessions: 1000,
  },
  { name: '10,000 messages, warm', user: () => 'many', commands: ['STAT', 'UIDL', 'QUIT'], clients: 1, sessions: 60 },
  { name: 'RETR of 5 MB', user: client => `large${client}`, commands: ['RETR 1', 'QUIT'], clients: 8, sessions: 160 },
]

/** Sessions a second, and milliseconds of the server's processors for each. */
async function measure(server: Server, { user, commands, clients, sessions }: Load) {
  let left = sessions
  const cpuBefore = cpuOf(server)
  const started = performance.now()
  await Promise.all(
    Array.from({ length: clients }, async (_, client) => {
      while (left-- > 0) await session(server.port, user(client), commands)
    }),
  )
  const took = performance.now() - started
  return { rate: (sessions / took) * 1000, cpu: (cpuOf(server) - cpuBefore) / sessions }
}

/** KB that one more idle session costs, after login. */
async function idleMemory(server: Server): Promise<number> {
  const count = 200
  const before = memoryOf(server)
  const sockets = await Promise.all(
    Array.from({ length: count }, async (_, client) => {
      const socket = connect({ port: server.port, host: '127.0.0.1' })
      for (const line of [`USER user${client % CLIENTS}`, 'PASS secret', 'STAT']) {
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

await buildAll()
chmodSync(directory.path, 0o755)
const line = `${'x'.repeat(69)}\n`
const users = [
  ...Array.from({ length: CLIENTS }, (_, client) => `user${client}`),
  'many',
  ...Array.from({ length: 8 }, (_, client) => `large${client}`),
]
for (const user of users) {
  if (user === 'many') maildrop(user, 10_000, '')
  else if (user.startsWith('large')) maildrop(user, 1, line.repeat(75_000))
  else maildrop(user, 10, line.repeat(58))
}
const servers = [await startDovecot(users), await startOurs(users)]
try {
  for (const server of servers) await answers(server)
  const results = new Map<string, number[]>()
  const note = (key: string, figure: number) => results.set(key, [...(results.get(key) ?? []), figure])
  for (const load of LOADS) {
    for (const server of servers) await measure(server, { ...load, sessions: load.clients * 2 })
    for (let round = 0; round < rounds; round += 1) {
      for (const server of servers) {
        const { rate, cpu } = await measure(server, load)
        note(`${load.name}, sessions/s/${server.name}`, rate)
        note(`${load.name}, CPU ms/${server.name}`, cpu)
      }
    }
  }
  for (const server of servers) note(`KB per idle login/${server.name}`, await idleMemory(server))
  const names = LOADS.flatMap(({ name }) => [`${name}, sessions/s`, `${name}, CPU ms`])
  const table = [...names, 'KB per idle login'].map(name => {
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
