import { existsSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { afterAll, afterEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { type CountedLogin, MaildropWorkers } from '../../../src/popup/monitor/maildrop-workers.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import type { MaildropWorkerSettings } from '../../../src/wire/workers/maildrop-worker.ts'
import { eventually } from '../../harness/eventually.ts'
import { takeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

/**
 * A program in place of pop3d: sends its ids to every client, and ends at the second connection.
 */
const PROGRAM = `
const { createServer, Socket } = require('node:net')
const channel = new Socket({ fd: 3, readable: true, writable: true })
channel.setEncoding('utf8').on('close', () => process.exit(0))
let clients = 0
channel.once('data', text => {
  const { ids } = JSON.parse(text.split('\\n')[0])
  const server = createServer(socket => {
    socket.end(JSON.stringify({ ids, pid: process.pid }) + '\\n')
    clients += 1
    if (clients === 2) socket.on('close', () => process.exit(Number(process.env.STATUS ?? 0)))
  })
  server.listen({ fd: 4 })
})
`

const directory = temporaryDirectory()
afterAll(() => directory.remove())
const program = `${directory.path}/worker.cjs`
writeFileSync(program, PROGRAM)
const uid = process.getuid?.() === 0 ? 61_230 : (process.getuid?.() ?? 61_230)
const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new TypeError('an address')
const session = { id: sessionId(7, 1), ip, user: 'ann', method: 'pass', tls: false } as const

const SETTINGS: MaildropWorkerSettings = {
  compat: 'none',
  sizes: 'wire',
  extraBlank: false,
  lock: 'none',
  idleTime: 600,
  workerIdle: 60,
  capabilities: { user: true, sasl: [], loginDelay: 0, implementation: 'auth-relay' },
}

let running: MaildropWorkers | undefined
afterEach(async () => {
  await running?.stop()
  running = undefined
})

function start(script = program, settings = SETTINGS): { workers: MaildropWorkers; lines: string[] } {
  const lines: string[] = []
  const workers = new MaildropWorkers(
    {
      runDir: directory.path,
      program: script,
      loginIds: undefined,
      logLevel: 'error',
      engine: 'auto',
      settings,
    },
    createLog('popup', { level: 'debug', write: line => lines.push(line) }),
    // The clock does not advance, so that tickets stay valid, and two tickets of one session are
    // equal.
    () => 1_700_000_000_000,
  )
  running = workers
  return { workers, lines }
}

/** The output of the worker behind the socket. */
async function ask(workers: MaildropWorkers, socket: string): Promise<string> {
  let text = ''
  const client = connect(`${workers.directory}/${socket}`).setEncoding('utf8')
  for await (const chunk of client) text += String(chunk)
  return text
}

const NOT_COUNTED: CountedLogin = { sessionBegan: () => {}, sessionRefused: () => {} }
const open = (workers: MaildropWorkers, gid: number, counted = NOT_COUNTED) =>
  workers.open({ uid, gid, maildir: '/mail/ann/Maildir' }, session, counted)

test('two accounts of one uid with different groups have one worker each', async () => {
  const { workers, lines } = start()
  const [first, second, again] = [await open(workers, 61_230), await open(workers, 61_299), await open(workers, 61_230)]
  expect(first.socket).not.toBe(second.socket)
  expect(again.socket).toBe(first.socket)
  const gids = [await ask(workers, first.socket), await ask(workers, second.socket)].map(
    text => /"gid":(\d+)/.exec(text)?.[1],
  )
  // Without root all processes have the same user, and no ids are passed.
  expect(gids).toEqual(process.getuid?.() === 0 ? ['61230', '61299'] : [undefined, undefined])
  expect(lines.filter(line => line.includes('event=worker_started'))).toHaveLength(2)
})

test('a worker that ends while a ticket may still arrive is started again on the same socket', async () => {
  const { workers, lines } = start()
  const { socket } = await open(workers, 61_230)
  const first = await ask(workers, socket)
  await ask(workers, socket)
  await eventually('the end is logged', () => lines.some(line => line.includes('event=worker_stopped')))
  const next = await ask(workers, socket)
  expect(next).toMatch(/"pid":\d+/)
  expect(next).not.toBe(first)
})

test('a worker that does not end when it has to is killed', async () => {
  const script = `${directory.path}/stays.cjs`
  writeFileSync(script, PROGRAM.replace('process.exit(0)', '{}'))
  const { workers } = start(script)
  const { socket } = await open(workers, 61_230)
  const pid = Number(/"pid":(\d+)/.exec(await ask(workers, socket))?.[1])
  running = undefined
  await workers.stop()
  expect(() => process.kill(pid, 0)).toThrow('ESRCH')
})

test('a ticket from before a crash is invalid, because the key has changed', async () => {
  const { workers, lines } = start()
  const before = await open(workers, 61_230)
  expect((await open(workers, 61_230)).ticket).toBe(before.ticket)
  const pid = Number(/"pid":(\d+)/.exec(await ask(workers, before.socket))?.[1])
  process.kill(pid, 'SIGKILL')
  await eventually('the crash is logged', () => lines.some(line => line.includes('event=worker_ended')))
  expect((await open(workers, 61_230)).ticket).not.toBe(before.ticket)
})

test('an answer of the checker with uid 0 or gid 0 opens no session', () => {
  const { workers } = start()
  const maildir = '/mail'
  expect(workers.refusalOf({ uid: 0, gid: 61_230, maildir })).toMatch(/uid 0/)
  expect(workers.refusalOf({ uid, gid: 0, maildir })).toMatch(/gid 0/)
  expect(workers.refusalOf({ uid, gid: 61_230, maildir })).toBeUndefined()
})

test('a reload does not fail because the socket of one owner cannot be opened', async () => {
  const { workers } = start()
  const { socket } = await open(workers, 61_230)
  const giveBack = takeDescriptors(0)
  try {
    const failing = expect(open(workers, 61_299)).rejects.toThrow('EMFILE')
    await workers.use(SETTINGS)
    await failing
  } finally {
    giveBack()
  }
  expect(await ask(workers, socket)).toMatch(/"pid":\d+/)
})

describe('with LOGIN-DELAY', () => {
  const DELAYED = { ...SETTINGS, capabilities: { ...SETTINGS.capabilities, loginDelay: 600 } }
  /** A login, and the reports about it. */
  const counted = (): { reports: string[]; login: CountedLogin } => {
    const reports: string[] = []
    const login = { sessionBegan: () => reports.push('began'), sessionRefused: () => reports.push('refused') }
    return { reports, login }
  }
  /** A worker that reports sessions at its start, and accepts no client. */
  const reporting = (name: string, ...reports: readonly unknown[]): string => {
    const script = `${directory.path}/${name}.cjs`
    const lines = reports.map(report => JSON.stringify(report))
    writeFileSync(
      script,
      `const { Socket } = require('node:net')
const channel = new Socket({ fd: 3, readable: true, writable: true })
channel.on('data', () => {}).on('close', () => process.exit(0))
channel.write(${JSON.stringify(`${lines.join('\n')}\n`)})`,
    )
    return script
  }
  const { id } = session

  test('the reports of the worker count its sessions, each once', async () => {
    const { workers } = start(
      reporting(
        'begins',
        { type: 'sessionBegun', id: sessionId(7, 2) },
        { type: 'sessionRefused', id: sessionId(7, 2) },
        { type: 'sessionBegun', id },
        { type: 'sessionBegun', id },
        { type: 'sessionRefused', id },
        { type: 'sessionRefused', id },
      ),
      DELAYED,
    )
    const { reports, login } = counted()
    await open(workers, 61_230, login)
    await eventually('the session is refused', () => reports.includes('refused'))
    expect(reports).toEqual(['began', 'refused'])
  })

  test('a worker cannot report a session of another owner', async () => {
    const script = `${directory.path}/foreign.cjs`
    const [first, second] = [`${directory.path}/first`, `${directory.path}/second`]
    const foreign = sessionId(7, 3)
    const reports = [foreign, id].map(each => `${JSON.stringify({ type: 'sessionRefused', id: each })}\n`).join('')
    // The worker that starts first reports both sessions when the other worker has started.
    writeFileSync(
      script,
      `const { existsSync, writeFileSync } = require('node:fs')
const { Socket } = require('node:net')
const channel = new Socket({ fd: 3, readable: true, writable: true })
channel.on('data', () => {}).on('close', () => process.exit(0))
if (existsSync('${first}')) writeFileSync('${second}', '')
else {
  writeFileSync('${first}', '')
  const timer = setInterval(() => {
    if (!existsSync('${second}')) return
    clearInterval(timer)
    channel.write(${JSON.stringify(reports)})
  }, 20)
}`,
    )
    const { workers } = start(script, DELAYED)
    const own = counted()
    await open(workers, 61_230, own.login)
    await eventually('the first worker runs', () => existsSync(first))
    const theirs = counted()
    await workers.open({ uid, gid: 61_299, maildir: '/mail' }, { ...session, id: foreign }, theirs.login)
    await eventually('the own login is refused', () => own.reports.includes('refused'))
    expect([own.reports, theirs.reports]).toEqual([['refused'], []])
  })

  test('after a crash the logins that wait get no session, and those with one keep it', async () => {
    const { workers, lines } = start(reporting('waits', { type: 'sessionBegun', id }), DELAYED)
    const running = counted()
    const waiting = counted()
    await open(workers, 61_230, running.login)
    const next = { ...session, id: sessionId(7, 4) }
    await workers.open({ uid, gid: 61_230, maildir: '/mail' }, next, waiting.login)
    await eventually('the session has begun', () => running.reports.includes('began'))
    const pid = Number(/event=worker_started.* pid=(\d+)/.exec(lines.join('\n'))?.[1])
    process.kill(pid, 'SIGKILL')
    await eventually('the login is given back', () => waiting.reports.length > 0)
    expect([running.reports, waiting.reports]).toEqual([['began'], ['refused']])
  })

  test('a login whose socket cannot be opened gets no session', async () => {
    const { workers } = start(program, DELAYED)
    const { reports, login } = counted()
    const giveBack = takeDescriptors(0)
    try {
      await expect(open(workers, 61_299, login)).rejects.toThrow('EMFILE')
    } finally {
      giveBack()
    }
    expect(reports).toEqual(['refused'])
  })
})
