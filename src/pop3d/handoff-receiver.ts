/**
 * The worker's side of the handoff: the order of sockets and messages, and the end of a channel
 * without a lost client.
 */
import type { Socket } from 'node:net'
import type { Connection } from '../sockets/connection.ts'
import type { Handover, HandoverChannel } from '../sockets/engine.ts'
import type { OpenSocket } from '../sockets/owned-descriptor.ts'
import { LineReader } from '../wire/lines.ts'
import {
  formatHandoffReply,
  type Handoff,
  type HandoffReply,
  MAX_HANDOFF_LINE,
  parseHandoff,
} from '../wire/workers/maildrop-worker.ts'

/**
 * Receives a client's socket whose session the ticket permits. `readAhead` contains the octets that
 * the client has already sent.
 */
export type ServeClient = (client: Connection, ticket: string, readAhead: Uint8Array) => void

/**
 * Handoff channels from login processes, over which clients' sockets arrive
 * (src/wire/workers/maildrop-worker.ts).
 */
export class HandoffReceiver {
  readonly #channels = new Set<ReceivedChannel>()
  readonly #handover: Handover
  readonly #serve: ServeClient

  constructor(handover: Handover, serve: ServeClient) {
    this.#handover = handover
    this.#serve = serve
  }

  /**
   * Takes over a connection whose first line was CHANNEL_LINE, without an octet behind it. If the
   * process has no free descriptor, the connection is closed, and the login process relays its
   * clients.
   */
  open(connection: Socket): void {
    try {
      const channel = new ReceivedChannel(connection, this.#handover, this.#serve, () => this.#channels.delete(channel))
      this.#channels.add(channel)
    } catch {
      connection.destroy()
    }
  }

  /** True if a login process could send a socket now. */
  get someOpen(): boolean {
    return [...this.#channels].some(({ isOpen }) => isOpen)
  }

  /**
   * Requests that login processes send no more clients on these channels. Settles when all have
   * ended their side. Clients that were sent before are served.
   */
  async closeWhenDone(): Promise<void> {
    const channels = [...this.#channels]
    for (const channel of channels) channel.closeWhenDone()
    await Promise.all(channels.map(({ inputEnded }) => inputEnded))
  }

  /** Closes all channels. */
  destroy(): void {
    for (const channel of this.#channels) channel.destroy()
  }
}

/**
 * The channel of one login process. The sessions of its clients end with the process, unless the
 * channel has ended in order.
 */
class ReceivedChannel {
  readonly inputEnded: Promise<void>
  readonly #socket: HandoverChannel
  readonly #handover: Handover
  readonly #serve: ServeClient
  readonly #clients = new Set<Connection>()
  /**
   * Sockets whose `handoff` message has not arrived yet, in order of arrival. Null stands for a
   * socket that could not be received.
   */
  readonly #sockets: (OpenSocket | null)[] = []
  readonly #lines = new LineReader()
  /** The message whose octets have not arrived in full. */
  #handoff: Handoff | undefined
  #unsent = ''
  #isClosing = false
  #inputEnds = false

  /** `closed` is called when the channel is closed. */
  constructor(connection: Socket, handover: Handover, serve: ServeClient, closed: () => void) {
    this.#handover = handover
    this.#serve = serve
    const { promise, resolve } = Promise.withResolvers<void>()
    this.inputEnded = promise
    this.#socket = handover.from(connection, {
      data: (octets, socket) => {
        if (socket !== undefined) this.#sockets.push(socket)
        this.#receive(octets)
      },
      end: () => {
        this.#inputEnds = true
        resolve()
        if (this.#isClosing) this.#endIfOver()
        else this.destroy()
      },
      closed: () => {
        resolve()
        for (const socket of this.#sockets.splice(0)) socket?.close()
        for (const client of this.#clients) client.destroy()
        closed()
      },
    })
    this.#socket.write(`${formatHandoffReply({ type: 'open' })}\n`)
  }

  get isOpen(): boolean {
    return !this.#inputEnds && !this.#socket.isDestroyed
  }

  closeWhenDone(): void {
    if (this.#isClosing) return
    this.#isClosing = true
    this.#send({ type: 'closing' })
  }

  destroy(): void {
    this.#socket.destroy()
  }

  #receive(octets: Buffer): void {
    this.#lines.push(octets)
    if (!this.#receiveAll()) this.destroy()
  }

  /** Processes the complete messages. False if the login process violates the protocol. */
  #receiveAll(): boolean {
    for (;;) {
      const handoff = this.#handoff ?? this.#next()
      if (handoff === undefined || handoff === 'invalid') return handoff === undefined
      const readAhead = this.#lines.takeOctets(handoff.octets)
      this.#handoff = readAhead === undefined ? handoff : undefined
      if (readAhead === undefined) return true
      if (!this.#adopt(handoff.n, handoff.ticket, readAhead)) return false
    }
  }

  #next(): Handoff | 'invalid' | undefined {
    const line = this.#lines.take(MAX_HANDOFF_LINE + 1)
    if (line === 'tooLong' || this.#lines.isDiscarding) return 'invalid'
    if (line === undefined) return undefined
    return parseHandoff(line.toString('latin1', 0, line.length - 1)) ?? 'invalid'
  }

  /**
   * Returns false if the login process violates the protocol: no descriptor came with the line, or
   * the descriptor is not a connection.
   */
  #adopt(n: number, ticket: string, readAhead: Uint8Array): boolean {
    const socket = this.#sockets.shift()
    if (socket === undefined) return false
    if (socket === null) {
      // The process has too many open files. Only this client is lost.
      this.#send({ type: 'ended', n })
      return true
    }
    const client = this.#handover.adopt(socket)
    if (client === undefined) return false
    if (client instanceof Error) {
      this.#send({ type: 'ended', n })
      return true
    }
    this.#clients.add(client)
    client.onceClosed(() => {
      this.#clients.delete(client)
      this.#send({ type: 'ended', n })
      this.#endIfOver()
    })
    this.#serve(client, ticket, readAhead)
    return true
  }

  /** Both sides have ended and the last session is over, so the channel can be closed. */
  #endIfOver(): void {
    if (this.#inputEnds && this.#clients.size === 0) setImmediate(() => this.destroy())
  }

  /** Sends the replies of one event loop turn in one write. */
  #send(reply: HandoffReply): void {
    if (this.#unsent === '') {
      setImmediate(() => {
        this.#socket.write(this.#unsent)
        this.#unsent = ''
      })
    }
    this.#unsent += `${formatHandoffReply(reply)}\n`
  }
}
