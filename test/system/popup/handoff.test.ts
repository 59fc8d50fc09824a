import { appendFileSync, chownSync, readFileSync, rmSync, utimesSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import type { Duplex } from 'node:stream'
import { setImmediate } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { childrenOf, dial, MESSAGE, PASS, type PopupStack, startPopup } from '../../harness/pop3/popup-stack.ts'
import { internetSocketsOf } from '../../harness/processes/process-status.ts'
import type { Stack } from '../../harness/stack.ts'

/**
 * After the login popup passes the client's socket to the pop3d worker. No octet may be lost,
 * doubled or sent to another client.
 */
describe('a connection that is handed over', () => {
  let running: PopupStack
  beforeAll(async () => {
    const { cert, key } = await makeSelfSigned({ names: ['localhost'], now: Date.now() })
    const settings = (stack: Stack) => ({
      max_per_address: 0,
      stls: true,
      stls_cert: stack.secret('stls.crt', cert),
      stls_key: stack.secret('stls.key', key),
    })
    running = await startPopup(settings, { '': { syslog: false, log_level: 'warn' } })
  })
  beforeEach(() => running.stack.showLogsOnFailure())
  afterAll(() => running.stop())

  const connectionsOf = (word: string): number =>
    childrenOf(running.stack.program('popup').pid, word)
      .flatMap(pid => internetSocketsOf(pid))
      .filter(({ state }) => state === 'connected').length

  /** Reads `count` lines and then pauses the stream. */
  async function linesOf(stream: Duplex, count: number): Promise<readonly string[]> {
    let text = ''
    const { promise, resolve } = Promise.withResolvers<void>()
    const data = (chunk: Buffer) => {
      text += chunk.toString('latin1')
      if (text.split('\r\n').length > count) resolve()
    }
    stream.on('data', data).on('error', resolve).resume()
    await promise
    stream.pause()
    stream.off('data', data)
    return text.split('\r\n').slice(0, -1)
  }

  /** ann's session, with the answers to USER and PASS. */
  async function loggedIn(how: string): Promise<{ readonly stream: Duplex; readonly lines: readonly string[] }> {
    const raw = dial(running.stack.port('popup'))
    await linesOf(raw, 1)
    let stream: Duplex = raw
    if (how === 'TLS') {
      raw.write('STLS\r\n')
      await linesOf(raw, 1)
      stream = connectTls({ socket: raw, rejectUnauthorized: false })
    }
    stream.write(`USER ann\r\n${PASS}\r\n`)
    return { stream, lines: await linesOf(stream, 2) }
  }

  /**
   * Sends everything at once, but the part behind a cut some turns of the event loop later.
   * Half of the clients then end their side.
   */
  async function pipelined(text: string, cut: number, turns: number, ends: boolean): Promise<string> {
    const socket = connect({ port: running.stack.port('popup'), host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    const received: Buffer[] = []
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.on('data', (chunk: Buffer) => received.push(chunk))
    socket.on('end', resolve).on('error', reject)
    socket.write(text.slice(0, cut), 'latin1')
    for (let turn = 0; turn < turns; turn += 1) await setImmediate()
    socket.write(text.slice(cut), 'latin1')
    if (ends) socket.end()
    await promise
    socket.destroy()
    return Buffer.concat(received).toString('latin1')
  }

  test('10,000 pipelined logins, cut at every place, lose nothing', async () => {
    const wire = (text: string) => text.replaceAll('\n', '\r\n')
    const octets = wire(MESSAGE).length
    const commands = 'STAT\r\nLIST\r\nRETR 1\r\nNOOP\r\nQUIT\r\n'
    const message = `+OK \r\n${wire(MESSAGE)}.\r\n`
    const expected = {
      ann: `+OK 1 ${octets}\r\n+OK \r\n1 ${octets}\r\n.\r\n${message}+OK \r\n+OK \r\n`,
      bob: `+OK 2 ${2 * octets}\r\n+OK \r\n1 ${octets}\r\n2 ${octets}\r\n.\r\n${message}+OK \r\n+OK \r\n`,
    }
    // The first QUIT moves the messages to cur/ while other sessions have listed them in new/.
    for (const user of ['ann', 'bob']) {
      const first = running.client()
      await first.login(user)
      await first.quit()
    }
    let next = 0
    let wrong: string | undefined
    const client = async () => {
      while (next < 10_000 && wrong === undefined) {
        const number = next++
        const user = number % 3 === 0 ? 'bob' : 'ann'
        const text = `USER ${user}\r\n${PASS}\r\n${commands}`
        const received = await pipelined(text, number % text.length, number % 7, number % 2 === 0)
        const answers = received.replace(/^\+OK <[^>]*>\r\n/, '')
        if (answers !== `+OK \r\n+OK \r\n${expected[user]}`) wrong = `${number}: ${JSON.stringify(received)}`
      }
    }
    await Promise.all(Array.from({ length: 32 }, client))
    expect(wrong).toBeUndefined()
    expect(next).toBeGreaterThanOrEqual(10_000)
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 0])
  }, 120_000)

  test('belongs to the worker from +OK on, and is counted until its session ends', async () => {
    const session = running.client()
    await session.login('ann')
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 1])
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 0])
  })

  const residentOf = (pid: number): number => Number(readFileSync(`/proc/${pid}/statm`, 'latin1').split(' ')[1]) * 4096

  /**
   * Reads a message of `octets` octets without keeping it. Returns the growth of all processes of
   * popup meanwhile.
   */
  async function growthDuring(stream: Duplex, octets: number): Promise<number> {
    const monitor = running.stack.program('popup').pid
    const pids = [monitor, ...childrenOf(monitor, '--login'), ...childrenOf(monitor, '--worker')]
    const resident = () => pids.reduce((sum, pid) => sum + residentOf(pid), 0)
    const before = resident()
    let most = before
    let received = 0
    let tail = ''
    stream.write('RETR 1\r\n')
    for await (const chunk of stream) {
      if (!(chunk instanceof Buffer)) throw new TypeError('octets')
      received += chunk.length
      tail = (tail + chunk.subarray(-5).toString('latin1')).slice(-5)
      if (received % (8 * MEGABYTE) < chunk.length) most = Math.max(most, resident())
      if (tail === '\r\n.\r\n') break
    }
    expect(received).toBe('+OK \r\n'.length + octets + '.\r\n'.length)
    return most - before
  }

  const MEGABYTE = 1_048_576

  test.each(['clear text', 'TLS'])('100 MB in %s pass with constant memory in all processes together', async how => {
    const path = `${running.ann.maildir}/cur/1600000000.M1P1.big:2,`
    const block = `${'x'.repeat(63)}\n`.repeat(MEGABYTE / 64)
    writeFileSync(path, '')
    for (let count = 0; count < 100; count += 1) appendFileSync(path, block)
    chownSync(path, running.ann.uid, running.ann.uid)
    utimesSync(path, 1_600_000_000, 1_600_000_000)
    const octets = 100 * MEGABYTE + (100 * MEGABYTE) / 64
    try {
      // Processes keep the buffers of their first transfer, and the garbage collector may run late.
      // So one of the later transfers must be flat. A process that held the message would grow by
      // 100 MB at the first one.
      const growths: number[] = []
      while (growths.length < 2 || (growths.length < 5 && Math.min(...growths.slice(1)) >= 30)) {
        const { stream } = await loggedIn(how)
        growths.push((await growthDuring(stream, octets)) / MEGABYTE)
        stream.destroy()
      }
      expect(growths[0]).toBeLessThan(100)
      expect(Math.min(...growths.slice(1))).toBeLessThan(30)
    } finally {
      rmSync(path)
    }
  })

  test('a session in TLS stays in the process with its keys', async () => {
    const { stream, lines } = await loggedIn('TLS')
    expect(lines).toEqual(['+OK ', '+OK '])
    stream.write('STAT\r\n')
    expect(await linesOf(stream, 1)).toEqual([expect.stringMatching(/^\+OK 1 /)])
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([1, 0])
    stream.destroy()
  })
})
