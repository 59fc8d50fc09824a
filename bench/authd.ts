import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, closeSync, existsSync, mkdirSync, openSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { parseArgs } from 'node:util'
import { buildAll } from '../scripts/build.ts'
import { openDatabase } from '../src/database/database.ts'
import { migrate } from '../src/database/migrate.ts'
import { DIALECTS } from '../src/syslog/dialects.ts'
import { LoginRecognizer } from '../src/syslog/login-recognizer.ts'
import { SyslogFraming } from '../src/syslog/syslog-framing.ts'
import { bsdStamp } from '../test/harness/authd/bsd-stamp.ts'
import { eventually } from '../test/harness/eventually.ts'
import { Program } from '../test/harness/processes/program.ts'
import { pathOf } from '../test/harness/runner/describe-with.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'
import { numberedAddress, startBenchServer } from './bench-database.ts'
import { installedVersion } from './debian-programs.ts'
import { measureLoginCost } from './login-cost.ts'
import { cpuOf } from './process-family.ts'
import { BenchReport, type Figure, quantile } from './report/report.ts'

/**
 * Throughput of authd: lines a second through the parser and over TCP, and logins a second answered
 * `committed`. Further figures are the time that this answer adds to a POP3 login, and the lines
 * that a burst loses in a FIFO and over TCP. The database is durable, and everything runs on this
 * machine.
 *
 * Run: node bench/authd.ts [--rounds N] [--quick] [parser] [tcp] [socket] [login] [burst]
 */
const root = new URL('..', import.meta.url).pathname
const { values: args, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '3' }, quick: { type: 'boolean', default: false } },
})
const rounds = Number(args.rounds)
/** Factor of every count of the bench. */
const scale = args.quick ? 0.02 : 1
const wanted = (part: string): boolean => positionals.length === 0 || positionals.includes(part)
const directory = temporaryDirectory()
const report = new BenchReport('authd')
/** Figures so far: each load and unit with a figure for each round. */
const figures = new Map<string, { readonly values: number[]; readonly figure: Omit<Figure, 'ours'> }>()
const figure = (load: string, unit: string, value: number, rest: Partial<Omit<Figure, 'ours'>> = {}): void => {
  const known = figures.get(`${load}: ${unit}`)
  if (known === undefined) {
    figures.set(`${load}: ${unit}`, { values: [value], figure: { load, unit, better: 'more', ...rest } })
  } else known.values.push(value)
  console.error(load, value, unit)
}
const inRounds = async (work: () => unknown): Promise<void> => {
  for (let round = 0; round < rounds; round += 1) await work()
}
const perSecond = (count: number, milliseconds: number): number => Math.round((count / milliseconds) * 1000)

/** Stamps of the current time, because authd grants nothing for an old line. */
const STAMP = bsdStamp()

/** A mail log: one line in ten is a login. */
const NOISE = [
  'Mar  5 10:11:12 mx postfix/smtpd[804]: connect from unknown[198.51.100.7]',
  'Mar  5 10:11:12 mx postfix/qmgr[99]: 4C5D2B: from=<ann@example.org>, size=2810, nrcpt=1 (queue active)',
  'Mar  5 10:11:12 mx ipop3d[804]: Logout user=ann host=h.example.net [198.51.100.7] nmsgs=0 ndele=0',
  'Mar  5 10:11:12 mx dovecot: pop3-login: Disconnected (auth failed, 1 attempts in 2 secs): user=<ivo>, method=PLAIN, rip=198.51.100.7, lip=192.0.2.1, TLS',
  'Mar  5 10:11:12 mx vpopmail[939]: vchkpw-pop3: password fail user1@example.org:198.51.100.7',
]
const line = (n: number): string =>
  n % 10 === 0
    ? `${STAMP} mx ipop3d[804]: Login user=ann host=h.example.net [${numberedAddress(n)}] nmsgs=0/0`
    : (NOISE[n % NOISE.length] ?? '')

function parserAlone(): void {
  const all = Buffer.from(Array.from({ length: 500_000 * scale }, (_, n) => `${line(n)}\n`).join(''))
  const recognizer = new LoginRecognizer({ dialects: DIALECTS, imap: true })
  for (const name of ['warm-up', 'framing, parser and recognizer, one core']) {
    const framing = new SyslogFraming()
    let logins = 0
    let lines = 0
    const started = performance.now()
    for (let at = 0; at < all.length; at += 65_536) {
      for (const text of framing.push(all.subarray(at, at + 65_536)).lines) {
        lines += 1
        if (recognizer.recognize(text, Date.now()).verdict === 'grant') logins += 1
      }
    }
    const took = performance.now() - started
    if (name === 'warm-up') continue
    if (logins * 10 !== lines) throw new Error(`${logins} logins found in ${lines} lines`)
    figure(name, 'lines/s', perSecond(lines, took), { goal: { figure: 50_000 } })
  }
}

type Authd = {
  readonly pid: number
  ready(key: string): string
  metric(name: string): Promise<number>
  stop(): Promise<void>
}

async function startAuthd(settings: string): Promise<Authd> {
  const config = `${directory.path}/auth-relay.toml`
  writeFileSync(config, settings)
  const logFile = `${directory.path}/authd.log`
  const log = openSync(logFile, 'w')
  const child = spawn(process.execPath, [`${root}dist/authd.js`, '--config', config], {
    stdio: ['ignore', 'ignore', log],
    env: {},
  })
  closeSync(log)
  const readyLine = await eventually(
    'authd is ready',
    () => /^authd ready .*$/m.exec(readFileSync(logFile, 'utf8'))?.[0],
  )
  const ready = (key: string): string => new RegExp(`${key}=(\\S+)`).exec(readyLine)?.[1] ?? ''
  return {
    pid: child.pid ?? 0,
    ready,
    async metric(name) {
      const text = await (await fetch(`http://${ready('metrics')}/metrics`)).text()
      const value = text.split('\n').find(each => each.startsWith(`${name} `))
      return Number(value?.slice(name.length + 1) ?? 0)
    },
    async stop() {
      child.kill('SIGTERM')
      await once(child, 'exit')
    },
  }
}

/** Sends all data to a TCP port, as fast as the port accepts it. */
async function send(address: string, octets: Buffer): Promise<void> {
  const [host = '', port = ''] = address.split(':')
  const socket = connect({ host, port: Number(port) })
  await once(socket, 'connect')
  socket.end(octets)
  await once(socket, 'close')
}

async function tcpLines(authd: Authd, name: string, count: number, make: (n: number) => string): Promise<void> {
  const octets = Buffer.from(Array.from({ length: count }, (_, n) => `${make(n)}\n`).join(''))
  const metric = 'authd_lines_total{source="tcp"}'
  const [before, cpuBefore] = [await authd.metric(metric), cpuOf(authd.pid)]
  const started = performance.now()
  await send(authd.ready('syslog'), octets)
  while ((await authd.metric(metric)) < before + count || (await authd.metric('authd_queue_length')) > 0) await pause(5)
  const took = performance.now() - started
  const cpu = cpuOf(authd.pid) - cpuBefore
  figure(name, 'lines/s', perSecond(count, took), { goal: { figure: 50_000 } })
  figure(name, "µs of authd's CPU a line", (cpu / count) * 1000, { better: 'less' })
}

/** `postgres`: pid of the server. */
async function announced(
  authd: Authd,
  postgres: number,
  connections: number,
  inFlight: number,
  count: number,
): Promise<void> {
  const cpuBefore = { authd: cpuOf(authd.pid), postgres: cpuOf(postgres) }
  const path = authd.ready('listen').replace('unix:', '')
  const delays: number[] = []
  const started = performance.now()
  const each = Math.floor(count / connections)
  const connection = async (number: number): Promise<void> => {
    const socket = connect({ path })
    await once(socket, 'connect')
    let sent = 0
    let answered = 0
    let committed = 0
    let rest = ''
    const sentAt = new Float64Array(each)
    const done = Promise.withResolvers<void>()
    const announce = (many: number): void => {
      let text = ''
      for (let n = 0; n < many && sent < each; n++, sent++) {
        sentAt[sent] = performance.now()
        text += `login v=1 id=${number}.${sent} ip=${numberedAddress((number * each + sent) % 200_000)} daemon=popup tls=1 method=pass user=ann${sent % 7}%40example.org\n`
      }
      if (text !== '') socket.write(text)
    }
    socket.on('data', chunk => {
      const parts = (rest + chunk.toString('latin1')).split('\n')
      rest = parts.pop() ?? ''
      const now = performance.now()
      for (const answer of parts) {
        const [, index = '', verdict] = /^ok id=\d+\.(\d+) (\w+)/.exec(answer) ?? []
        if (verdict === 'committed') committed += 1
        delays.push(now - (sentAt[Number(index)] ?? now))
      }
      answered += parts.length
      announce(parts.length)
      if (answered >= each) done.resolve()
    })
    announce(inFlight)
    await done.promise
    socket.destroy()
    if (committed !== each) throw new Error(`only ${committed} of ${each} logins were committed`)
  }
  await Promise.all(Array.from({ length: connections }, (_, number) => connection(number)))
  const took = performance.now() - started
  const cpu = (before: number, after: number): number => ((after - before) / count) * 1000
  const what = `logins answered committed, ${connections} × ${inFlight} in flight`
  const goal = inFlight === 1 ? {} : { goal: { figure: 20_000 } }
  figure(what, 'logins/s', perSecond(each * connections, took), goal)
  figure(what, 'ms, median', quantile(delays, 0.5), { better: 'less' })
  figure(what, 'ms, p99', quantile(delays, 0.99), {
    better: 'less',
    ...(inFlight === 1 ? { goal: { figure: 5 } } : {}),
  })
  figure(what, "µs of authd's CPU a login", cpu(cpuBefore.authd, cpuOf(authd.pid)), { better: 'less' })
  figure(what, "µs of PostgreSQL's CPU a login", cpu(cpuBefore.postgres, cpuOf(postgres)), { better: 'less' })
}

/**
 * The same burst through a real rsyslogd: into a FIFO with a plain reader, into authd's FIFO, and
 * by TCP to authd.
 */
async function bursts(settings: (authd: string) => string): Promise<void> {
  const rsyslogd = pathOf('rsyslogd')
  const logger = pathOf('logger')
  if (rsyslogd === undefined || logger === undefined) {
    report.note('The bursts are left out, because rsyslogd or logger is missing.')
    return
  }
  for (const count of [5000 * scale, 100_000 * scale]) {
    for (const way of ['FIFO of 64 KiB, plain reader', 'FIFO, authd', 'TCP, authd']) {
      const place = `${directory.path}/${count}-${way.replaceAll(/\W+/g, '-')}`
      mkdirSync(place)
      const fifo = `${place}/fifo`
      await new Program('mkfifo', ['mkfifo', fifo]).ended
      const isPlain = way.endsWith('plain reader')
      const authd = isPlain
        ? undefined
        : await startAuthd(
            settings(way.startsWith('FIFO') ? `syslog_fifo = "${fifo}"` : 'syslog_listen = ["127.0.0.1:0"]'),
          )
      const out = openSync(`${place}/read`, 'w')
      // Opened for reading and writing, as authd does; cat reads the data in pieces of 128 KiB.
      const reader = isPlain
        ? spawn('sh', ['-c', `exec cat <>'${fifo}'`], { stdio: ['ignore', out, 'inherit'] })
        : undefined
      closeSync(out)
      const action =
        way === 'TCP, authd'
          ? `action(type="omfwd" Target="127.0.0.1" Port="${authd?.ready('syslog').split(':')[1]}" Protocol="tcp" TCP_Framing="octet-counted" Template="RSYSLOG_SyslogProtocol23Format")`
          : `action(type="ompipe" Pipe="${fifo}" Template="RSYSLOG_TraditionalFileFormat")`
      writeFileSync(
        `${place}/rsyslog.conf`,
        `global(workDirectory="${place}")\nmodule(load="imuxsock" SysSock.Use="off")\ninput(type="imuxsock" Socket="${place}/log" RateLimit.Interval="0")\nmail.* ${action}\nmail.* action(type="omfile" File="${place}/all")\n`,
      )
      const syslog = new Program('rsyslogd', [rsyslogd, '-n', '-f', `${place}/rsyslog.conf`, '-i', `${place}/pid`])
      await eventually('rsyslogd listens', () => existsSync(`${place}/log`))
      writeFileSync(
        `${place}/burst`,
        Array.from({ length: count }, (_, n) => `Login user=ann host=[${numberedAddress(n)}] nmsgs=0/0\n`).join(''),
      )
      const started = performance.now()
      await new Program('logger', [
        logger,
        '-u',
        `${place}/log`,
        '-t',
        'ipop3d',
        '-p',
        'mail.info',
        '-f',
        `${place}/burst`,
      ]).ended
      const sent = performance.now() - started
      const lines = (path: string): number => readFileSync(path, 'latin1').split('\n').length - 1
      // The burst is over when no line has arrived for a second.
      const arrived = async (): Promise<number> =>
        authd === undefined
          ? lines(`${place}/read`)
          : (await authd.metric('authd_lines_total{source="fifo"}')) +
            (await authd.metric('authd_lines_total{source="tcp"}'))
      let last = -1
      let quiet = 0
      let now = 0
      while (quiet < 10) {
        await pause(100)
        now = (await arrived()) + statSync(`${place}/all`).size
        quiet = now === last ? quiet + 1 : 0
        last = now
      }
      const what = `burst of ${count} lines by rsyslogd: ${way}`
      figure(what, 'lines kept', await arrived(), isPlain ? {} : { goal: { figure: count } })
      figure(what, 'lines/s sent', perSecond(count, sent))
      await syslog.stop()
      reader?.kill()
      await authd?.stop()
    }
  }
}

chmodSync(directory.path, 0o755)
await buildAll()
if (wanted('parser')) await inRounds(parserAlone)
const server = await startBenchServer(directory.path)
try {
  const database = openDatabase({ ...server.connection, applicationName: 'bench', max: 1 })
  await migrate(database, `${root}sql`)
  await database.script("ALTER ROLE pop3authd PASSWORD 'pop3authd'")
  await database.close()
  const settings = (authd: string): string => `configured = true
state_dir = "${directory.path}/state"
[database]
dbhost = "${server.connection.hosts[0]?.host}"
dbname = "postgres"
dbuser = "pop3authd"
dbpass = "pop3authd"
[grants]
grant_loopback = true
[authd]
socket = "${directory.path}/authd.sock"
usage_socket = ""
metrics_listen = "127.0.0.1:0"
check_imap = true
${DIALECTS.map(({ setting }) => `${setting} = true\n`).join('')}${authd}
`
  const authd = await startAuthd(settings('syslog_listen = ["127.0.0.1:0"]'))
  const many = 300_000 * scale
  if (wanted('tcp')) {
    await inRounds(() =>
      tcpLines(authd, 'log lines over TCP, without logins', many, n => NOISE[n % NOISE.length] ?? ''),
    )
    await inRounds(() => tcpLines(authd, 'log lines over TCP, one in ten a login that is stored', many, line))
  }
  for (const [connections, inFlight] of [
    [1, 1],
    [1, 64],
    [4, 64],
    [16, 64],
  ] as const) {
    const count = (inFlight === 1 ? 2000 : 60_000) * scale
    if (wanted('socket')) await inRounds(() => announced(authd, server.pid, connections, inFlight, count))
  }
  if (wanted('login')) {
    const authdSocket = authd.ready('listen').replace('unix:', '')
    const cost = await measureLoginCost({
      directory: directory.path,
      authdSocket,
      rounds: 5,
      logins: 300 * (args.quick ? 0.1 : 1),
    })
    for (const [what, { granted, plain }] of Object.entries(cost)) {
      const load = `POP3 login, PASS to +OK, ${what}`
      report.add({ load, unit: 'ms', better: 'less', ours: granted, peer: { name: 'without authd', ...plain } })
      const added = granted.rounds.map((taken, round) => taken - (plain.rounds[round] ?? Number.NaN))
      const goal = what === 'p99' ? { goal: { figure: 5 } } : {}
      report.add({
        load: `${load}: added by the answer committed`,
        unit: 'ms',
        better: 'less',
        ours: { rounds: added },
        ...goal,
      })
    }
  }
  await authd.stop()
  if (wanted('burst')) await bursts(settings)
} finally {
  await server.stop()
  directory.remove()
}
for (const { values, figure: known } of figures.values()) report.add({ ...known, ours: { rounds: values } })
report.measured({
  name: 'rsyslog',
  version: installedVersion('rsyslog') ?? 'missing',
  settings: 'ompipe and omfwd, no rate limit',
})
report.note('The embedded PostgreSQL with durable commits. The clients run on the same two cores.')
report.finish()
