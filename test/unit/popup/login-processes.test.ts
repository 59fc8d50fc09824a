import { writeFileSync } from 'node:fs'
import { afterEach, describe, expect, test } from 'vitest'
import { type Clock, monotonicClock } from '../../../src/base/clock.ts'
import { createLog } from '../../../src/base/log.ts'
import { LoginProcesses } from '../../../src/popup/monitor/login-processes.ts'
import type { FromLogin, LoginSettingsMessage } from '../../../src/wire/workers/login-process.ts'
import { eventually } from '../../harness/eventually.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const SETTINGS: LoginSettingsMessage = {
  ids: null,
  logLevel: 'error',
  engine: 'auto',
  handoff: true,
  directory: '/',
  listeners: [],
  mode: 'verify',
  hostname: 'mx.example.org',
  apop: true,
  preamble: null,
  proxyTrust: [],
  proxyTls: false,
  nat64Prefixes: [],
  compat: 'none',
  requireTls: false,
  cleartextNets: [],
  cleartextLogins: [],
  offersStls: false,
  stls: null,
  loginDelay: 0,
  tries: 3,
  maxConnections: 10,
  maxPerAddress: 10,
  maxPerLogin: 100,
  maxPerOwner: 100,
  loginTime: 1000,
  idleTime: 1000,
  upstream: null,
}

/** A program in place of a login process; the test decides its messages on the control channel. */
const PROGRAM = `
const { Socket } = require('node:net')
const channel = new Socket({ fd: 3, readable: true, writable: true })
const say = (message, sent) => channel.write(JSON.stringify(message) + '\\n', sent)
channel.on('close', () => process.exit(0))
const verify = n => ({ type: 'verify', n, id: '7f3a.1', login: 'x'.repeat(12000), secret: 'y'.repeat(12000), method: 'pass', ip: '192.0.2.1', tls: false, timestamp: '' })
`

describe('LoginProcesses', () => {
  const directory = temporaryDirectory()
  let stop: (() => Promise<void>) | undefined
  afterEach(async () => {
    await stop?.()
    stop = undefined
  })

  /** Starts one process that runs the text. */
  const start = async (
    name: string,
    text: string,
    onMessage: (message: FromLogin, send: () => void) => void,
    clock: Clock = monotonicClock,
  ) => {
    const lines: string[] = []
    const ended: number[] = []
    const program = `${directory.path}/${name}.cjs`
    writeFileSync(program, `${PROGRAM}\n${text}`)
    const log = createLog('popup', { level: 'debug', write: line => lines.push(line) })
    const processes = new LoginProcesses(
      {
        count: 1,
        program,
        listeners: [],
        chainListeners: [],
        settings: () => SETTINGS,
        onMessage: (process, message) =>
          onMessage(message, () => process.send({ type: 'failed', n: 1, failure: 'temporary' })),
        onEnded: ({ index }) => ended.push(index),
      },
      log,
      clock,
    )
    stop = () => processes.stop(0)
    await processes.start()
    return { lines, ended: ended, processes }
  }
  const logged = (lines: readonly string[], text: string) =>
    eventually(text, () => lines.some(line => line.includes(text)), 20_000)

  test('pass messages on, and restart a process that has ended', async () => {
    const received: FromLogin[] = []
    const { lines, ended } = await start(
      'ends',
      `say({ type: 'ready' }); say({ type: 'cancel', n: 7 }, () => process.exit(3))`,
      message => received.push(message),
    )
    await eventually('a second process sends a message', () => received.length >= 2, 20_000)
    expect(received[0]).toEqual({ type: 'cancel', n: 7 })
    expect(ended[0]).toBe(0)
    await logged(lines, 'event=login_process_ended status=3')
  })

  test('a start fails if its process ends before it is ready', async () => {
    await expect(start('early', 'process.exit(1)', () => {})).rejects.toThrow('ended while it started')
  })

  test('a process that sends octets that are not a message is killed', async () => {
    const { lines, ended } = await start('hostile', `say({ type: 'ready' }); say({ type: 'grant' })`, () => {})
    await logged(lines, 'it sent an invalid message')
    await eventually('the requests of the process are cancelled', () => ended.length > 0)
  })

  test('a flood of long messages is limited by its octets, long before its number', async () => {
    let received = 0
    let isFirst = true
    const flood = `say({ type: 'ready' }); let n = 0
      const more = () => { for (let i = 0; i < 100; i++) say(verify(++n))
        if (channel.writableNeedDrain) channel.once('drain', more)
        else setImmediate(more) }
      more()`
    // The clock does not advance, so that only the burst counts, at any speed of the machine.
    const { lines } = await start(
      'flood',
      flood,
      message => {
        // The process that replaces the first one begins at 1 again.
        if (received > 0 && 'n' in message && message.n === 1) isFirst = false
        if (isFirst) received += 1
      },
      () => 0,
    )
    await logged(lines, 'it sent too many messages')
    // 24 kB each, and not the 40,000 that the number allows.
    expect(received).toBe(Math.floor(67_108_864 / 24_127))
  })

  test('a process that does not end when it has to is killed', async () => {
    const { processes, ended } = await start(
      'stays',
      `channel.removeAllListeners('close'); setInterval(() => {}, 1000); say({ type: 'ready' })`,
      () => {},
    )
    await processes.stop(0)
    expect(ended).toEqual([0])
  })

  test('a process that does not read its answers is killed', async () => {
    const deaf = `say({ type: 'ready' }); channel.pause(); say({ type: 'cancel', n: 1 })`
    const { lines } = await start('deaf', deaf, (_, send) => {
      for (let i = 0; i < 200_000; i++) send()
    })
    await logged(lines, 'it does not read its answers')
  })
})
