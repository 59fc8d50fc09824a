import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { LineSplitter } from '../../../src/wire/lines.ts'
import {
  formatLoginEvent,
  type LoginAnswer,
  type LoginEvent,
  MAX_LOGIN_EVENT_LINE,
  parseLoginAnswer,
} from '../../../src/wire/login-event.ts'
import { address } from '../hosts/network-namespace.ts'

/** One connection to authd's socket, as popup's monitor keeps it: many announcements in flight. */
export class AuthdClient {
  readonly #socket: Socket
  readonly #waiting = new Map<string, (answer: LoginAnswer) => void>()
  /** Every line that authd sent. */
  readonly lines: string[] = []
  closed = false
  #onLine: (() => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    const splitter = new LineSplitter(MAX_LOGIN_EVENT_LINE)
    socket.on('data', chunk => {
      for (const line of splitter.push(chunk).lines) this.#receive(line)
    })
    socket.on('error', () => {}) // the event 'close' follows
    socket.on('close', () => {
      this.closed = true
      this.#onLine?.()
    })
  }

  static async connect(path: string): Promise<AuthdClient> {
    const socket = connect({ path })
    await once(socket, 'connect')
    return new AuthdClient(socket)
  }

  /** Resolves with the answer to this announcement; never if the connection breaks first. */
  announce(event: LoginEvent): Promise<LoginAnswer> {
    return new Promise(resolve => {
      this.#waiting.set(event.id, resolve)
      this.#socket.write(`${formatLoginEvent(event)}\n`)
    })
  }

  /** Writes octets that the test made, unchanged. */
  write(text: string): void {
    this.#socket.write(text)
  }

  /** The n-th line that authd sent; undefined if the connection ended before it. */
  async line(n: number): Promise<string | undefined> {
    while (this.lines.length < n && !this.closed) {
      await new Promise<void>(resolve => {
        this.#onLine = resolve
      })
    }
    return this.lines[n - 1]
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(line: string): void {
    this.lines.push(line)
    this.#onLine?.()
    const answer = parseLoginAnswer(line)
    if (answer === undefined) return
    this.#waiting.get(answer.id)?.(answer)
    this.#waiting.delete(answer.id)
  }
}

/** A login event of popup. The address is a text, which is shorter to write in a test. */
export const loginFrom = (id: string, ip: string, rest: Partial<LoginEvent> = {}): LoginEvent => ({
  id,
  ip: address(ip),
  daemon: 'popup',
  tls: true,
  method: 'pass',
  user: 'ann',
  ...rest,
})

/** A different public address for every number below 16 million. */
export const publicAddress = (n: number): string => `11.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`
