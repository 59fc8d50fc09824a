import { createServer, type Server, type Socket } from 'node:net'
import { LineSplitter } from '../../../src/wire/lines.ts'
import {
  formatLoginAnswer,
  type LoginAnswer,
  type LoginEvent,
  MAX_LOGIN_EVENT_LINE,
  parseLoginEvent,
} from '../../../src/wire/login-event.ts'
import { eventually } from '../eventually.ts'

/**
 * A double of authd on a Unix socket: it keeps the events, and answers them when the test calls
 * `answer`.
 */
export class AuthdDouble {
  readonly events: LoginEvent[] = []
  /** The answer; undefined: no answer until the test calls `answer`. */
  answer: (event: LoginEvent) => LoginAnswer | undefined = ({ id }) => ({
    verdict: 'committed',
    id,
    until: 2_000_000_000,
  })
  readonly #server: Server
  readonly #sockets = new Set<Socket>()

  private constructor(server: Server) {
    this.#server = server
    server.on('connection', socket => this.#serve(socket))
  }

  static async listen(path: string): Promise<AuthdDouble> {
    const server = createServer()
    const double = new AuthdDouble(server)
    await new Promise<void>((resolve, reject) => {
      server.once('error', reject)
      server.listen(path, resolve)
    })
    return double
  }

  /** Waits for the event of a login and returns it. */
  event(user: string): Promise<LoginEvent> {
    return eventually(`the login event of ${user} arrives`, () => this.events.findLast(event => event.user === user))
  }

  /** Sends an answer to every connection. */
  say(answer: LoginAnswer): void {
    for (const socket of this.#sockets) socket.write(`${formatLoginAnswer(answer)}\n`)
  }

  async stop(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise<void>(resolve => this.#server.close(() => resolve()))
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    const lines = new LineSplitter(MAX_LOGIN_EVENT_LINE)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#sockets.delete(socket))
    socket.on('data', chunk => {
      for (const line of lines.push(chunk).lines) {
        const event = parseLoginEvent(line)
        if (!('ip' in event)) throw new Error(`no login event: ${line}`)
        this.events.push(event)
        const answer = this.answer(event)
        if (answer !== undefined) socket.write(`${formatLoginAnswer(answer)}\n`)
      }
    })
  }
}
