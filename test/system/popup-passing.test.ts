import { connect } from 'node:net'
import { setImmediate } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { makeSelfSigned } from '../../src/tunnel/self-signed.ts'
import { childrenOf, MESSAGE, PASS, type PopupStack, startPopup } from '../harness/popup-stack.ts'
import { internetSocketsOf } from '../harness/process-status.ts'
import type { Stack } from '../harness/stack.ts'

/** After the login popup gives the client's socket to the pop3d worker. No octet may be lost, doubled or given to another on the way. */
describe('a socket that changes hands', () => {
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

  /** Says everything at once but for a cut where the rest follows some turns later; half of them then end their side. */
  async function pipelined(text: string, cut: number, turns: number, ends: boolean): Promise<string> {
    const socket = connect({ port: running.stack.port('popup'), host: '127.0.0.1', noDelay: true, allowHalfOpen: true })
    const heard: Buffer[] = []
    const { promise, resolve, reject } = Promise.withResolvers<void>()
    socket.on('data', (chunk: Buffer) => heard.push(chunk))
    socket.on('end', resolve).on('error', reject)
    socket.write(text.slice(0, cut), 'latin1')
    for (let turn = 0; turn < turns; turn += 1) await setImmediate()
    socket.write(text.slice(cut), 'latin1')
    if (ends) socket.end()
    await promise
    socket.destroy()
    return Buffer.concat(heard).toString('latin1')
  }

  test('10,000 pipelined logins, cut at every place, lose nothing', async () => {
    const wire = (text: string) => text.replaceAll('\n', '\r\n')
    const octets = wire(MESSAGE).length
    const commands = 'STAT\r\nLIST\r\nRETR 1\r\nNOOP\r\nQUIT\r\n'
    const message = `+OK \r\n${wire(MESSAGE)}\r\n.\r\n`
    const expected = {
      ann: `+OK 1 ${octets}\r\n+OK \r\n1 ${octets}\r\n.\r\n${message}+OK \r\n+OK \r\n`,
      bob: `+OK 2 ${2 * octets}\r\n+OK \r\n1 ${octets}\r\n2 ${octets}\r\n.\r\n${message}+OK \r\n+OK \r\n`,
    }
    // The first QUIT moves the messages to cur/, under the feet of sessions that have seen them in new/.
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
        const heard = await pipelined(text, number % text.length, number % 7, number % 2 === 0)
        const answers = heard.replace(/^\+OK <[^>]*>\r\n/, '')
        if (answers !== `+OK \r\n+OK \r\n${expected[user]}`) wrong = `${number}: ${JSON.stringify(heard)}`
      }
    }
    await Promise.all(Array.from({ length: 32 }, client))
    expect(wrong).toBeUndefined()
    expect(next).toBeGreaterThanOrEqual(10_000)
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 0])
  }, 120_000)

  test('is the worker’s alone from the +OK on, and counted until its session ends', async () => {
    const session = running.client()
    await session.login('ann')
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 1])
    await session.ask('STAT', /^\+OK 1 /)
    await session.quit()
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([0, 0])
  })

  test('a session in TLS stays where its keys are', async () => {
    const raw = connect(running.stack.port('popup'), '127.0.0.1')
    const lines: string[] = []
    const wait = async (stream: typeof raw, count: number) => {
      while (lines.length < count) {
        const [chunk] = await new Promise<[Buffer]>(resolve => stream.once('data', (data: Buffer) => resolve([data])))
        lines.push(...chunk.toString('latin1').split('\r\n').slice(0, -1))
      }
    }
    await wait(raw, 1)
    raw.write('STLS\r\n')
    await wait(raw, 2)
    const secure = connectTls({ socket: raw, rejectUnauthorized: false })
    secure.write(`USER ann\r\n${PASS}\r\nSTAT\r\n`)
    await wait(secure, 5)
    expect(lines.slice(2)).toEqual(['+OK ', '+OK ', expect.stringMatching(/^\+OK 1 /)])
    expect([connectionsOf('--login'), connectionsOf('--worker')]).toEqual([1, 0])
    secure.destroy()
  })
})
