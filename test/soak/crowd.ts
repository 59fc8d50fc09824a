import { connect as connectTcp, type Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { TEST_PASSWORD } from '../harness/stack.ts'

/** Number of connections that are between connect and login at once. */
const AT_ONCE = 64
/** Time after which a silent server counts as hung. */
const ANSWER_LIMIT_MS = 30_000

/** The n-th of many client addresses, all on this host. */
export const clientAddress = (n: number): string => `127.${1 + ((n >> 16) & 0x7f)}.${(n >> 8) & 0xff}.${1 + (n % 254)}`

/**
 * Sends these lines, each after the answer to the previous one; fulfilled when the last answer is
 * +OK.
 */
export function logIn(socket: Socket, login: string, password = TEST_PASSWORD): Promise<boolean> {
  const lines = [`USER ${login}`, `PASS ${password}`]
  const { promise, resolve, reject } = Promise.withResolvers<boolean>()
  let received = ''
  let answers = 0
  const onData = (chunk: Buffer): void => {
    received += chunk.toString('latin1')
    for (let end = received.indexOf('\n'); end >= 0; end = received.indexOf('\n')) {
      const isGood = received.startsWith('+OK')
      received = received.slice(end + 1)
      answers += 1
      const line = lines.shift()
      if (!isGood || line === undefined) {
        socket.off('data', onData).off('close', lost).setTimeout(0)
        resolve(isGood)
        return
      }
      socket.write(`${line}\r\n`)
    }
  }
  const lost = (): void => reject(new Error(`closed after ${answers} answers`))
  socket.on('data', onData).on('close', lost).on('error', lost)
  socket.setTimeout(ANSWER_LIMIT_MS, () => {
    reject(new Error(`no answer within ${ANSWER_LIMIT_MS} ms, after ${answers}`))
    socket.destroy()
  })
  return promise
}

/** Opens `count` sessions, logged in and idle, each from a different address. */
export async function idleSessions(port: number, count: number, { tls = false } = {}): Promise<readonly Socket[]> {
  const sockets: Socket[] = []
  let next = 0
  const one = async (): Promise<void> => {
    while (next < count) {
      const raw = connectTcp({ host: '127.0.0.1', port, localAddress: clientAddress(next++) })
      const socket = tls ? connectTls({ socket: raw, rejectUnauthorized: false }) : raw
      sockets.push(socket)
      if (!(await logIn(socket, 'ann'))) throw new Error('a right password was refused')
    }
  }
  await Promise.all(Array.from({ length: AT_ONCE }, one))
  return sockets
}

/** Sends NOOP on each session and waits for the answer. */
export async function areAlive(sockets: readonly Socket[]): Promise<number> {
  const answers = await Promise.all(
    sockets.map(
      socket =>
        new Promise<boolean>(resolve => {
          if (socket.destroyed) resolve(false)
          socket.once('data', (chunk: Buffer) => resolve(chunk.toString('latin1').startsWith('+OK')))
          socket.once('close', () => resolve(false))
          socket.write('NOOP\r\n')
        }),
    ),
  )
  return answers.filter(Boolean).length
}
