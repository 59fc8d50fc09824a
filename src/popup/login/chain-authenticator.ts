/**
 * Login by a checkpassword program with a POP3 server behind it, and the connections of that
 * server.
 */
import { createServer, type Server, type Socket } from 'node:net'
import type { Log } from '../../base/log.ts'
import { isPositive, readReply } from '../../tunnel/first-line.ts'
import { parseChainLine } from '../../wire/workers/login-process.ts'
import type { Authenticator } from './authenticator.ts'
import { askToVerify, failureIn, type MonitorRequests, withRequest } from './monitor-authenticator.ts'

/** Milliseconds to wait for the monitor. The longest time of a checker is shorter. */
const REPLY_LIMIT_MS = 610_000
/** Characters of a program's line that are logged. */
const MOST_SHOWN = 80

/**
 * A checkpassword program with a POP3 server behind it decides; the monitor runs it. The server's
 * first +OK is the proof. This +OK and the octets that the client sent ahead are held back until
 * the login is announced, because servers of qmail's time lose such octets.
 */
export function chainAuthenticator(monitor: MonitorRequests, chains: ChainConnections, log: Log): Authenticator {
  return (login, disconnect) =>
    withRequest(askToVerify(monitor, login), disconnect, async request => {
      const answered = request.answer()
      const program = new Promise<Socket>(resolve => chains.expect(request.n, resolve))
      const first = await Promise.race([program, answered])
      chains.forget(request.n)
      if ('type' in first) return failureIn(first)
      const reply = await readReply(first, REPLY_LIMIT_MS)
      if (reply !== undefined && isPositive(reply)) request.report('yes')
      else {
        const line = reply?.line.toString('latin1').trimEnd().slice(0, MOST_SHOWN)
        if (line !== undefined) log.warn('chain_reply_unexpected', { id: login.client.id, line })
        first.destroy()
      }
      // If there is no +OK, the monitor sends the meaning of the program's end.
      const answer = await answered
      if (reply !== undefined && answer.type === 'announced') {
        return { kind: 'open', stream: first, reply: [reply.line, reply.rest] }
      }
      first.destroy()
      return failureIn(answer)
    })
}

/** The monitor sends the number of the request as the first line of a connection. */
const NAME_LIMIT_MS = 10_000

/**
 * Takes the connections that the monitor makes for chained programs, and hands each to the session
 * that waits for it.
 */
export class ChainConnections {
  readonly server: Server
  readonly #expected = new Map<number, (socket: Socket) => void>()

  constructor() {
    this.server = createServer({ allowHalfOpen: true, pauseOnConnect: true }, socket => void this.#accept(socket))
  }

  /** `take` is called with the connection of request n, unless `forget` comes first. */
  expect(n: number, take: (socket: Socket) => void): void {
    this.#expected.set(n, take)
  }

  forget(n: number): void {
    this.#expected.delete(n)
  }

  async #accept(socket: Socket): Promise<void> {
    const first = await readReply(socket, NAME_LIMIT_MS)
    const n = parseChainLine(first?.line.toString('latin1') ?? '') ?? 0
    const take = this.#expected.get(n)
    this.#expected.delete(n)
    if (first === undefined || take === undefined) {
      socket.destroy()
      return
    }
    if (first.rest.length > 0) socket.unshift(first.rest)
    take(socket)
  }
}
