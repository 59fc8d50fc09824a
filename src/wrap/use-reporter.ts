import { connect, type Socket } from 'node:net'
import { formatRelayUse, type RelayUse } from '../wire/relay-use.ts'

/** Uses kept while authd is away; the oldest go first. */
const MAX_WAITING = 10_000
const FLUSH_MS = 200
const RETRY_MS = 5_000

/** Tells authd who needed a grant, for its history. Best effort: never waits, never fails, never stops the process from ending. */
export class UseReporter {
  readonly #path: string
  readonly #waiting: string[] = []
  #socket: Socket | undefined
  #timer: NodeJS.Timeout | undefined

  readonly #retryMs: number

  /** `path`: authd's Unix socket for uses. */
  constructor(path: string, retryMs = RETRY_MS) {
    this.#path = path
    this.#retryMs = retryMs
  }

  report(use: RelayUse): void {
    if (this.#waiting.length >= MAX_WAITING) this.#waiting.shift()
    this.#waiting.push(`${formatRelayUse(use)}\n`)
    this.#flushIn(FLUSH_MS)
  }

  /** Sends what waits, if authd is there. */
  close(): void {
    clearTimeout(this.#timer)
    this.#flush()
    this.#socket?.end()
  }

  #flushIn(ms: number): void {
    if (this.#timer !== undefined) return
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#flush()
    }, ms).unref()
  }

  #flush(): void {
    if (this.#waiting.length === 0) return
    const socket = this.#socket
    if (socket === undefined) this.#connect()
    else if (socket.writableNeedDrain) this.#flushIn(this.#retryMs)
    else if (!socket.connecting) socket.write(this.#waiting.splice(0).join(''))
  }

  #connect(): void {
    const socket = connect({ path: this.#path }).unref()
    this.#socket = socket
    socket.once('connect', () => this.#flush())
    socket.on('error', () => {}) // authd is away; what waits is kept, up to a bound
    socket.on('close', () => {
      this.#socket = undefined
      if (this.#waiting.length > 0) this.#flushIn(this.#retryMs)
    })
    socket.resume()
  }
}
