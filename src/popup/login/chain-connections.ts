import { createServer, type Server, type Socket } from 'node:net'
import { readFirstLine } from './first-line.ts'

/** The monitor says at once which request a connection is for. */
const LIMIT_MS = 10_000

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
    const first = await readFirstLine(socket, LIMIT_MS)
    const n = Number(/^chain (\d{1,15})\n$/.exec(first?.line.toString('latin1') ?? '')?.[1] ?? 0)
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
