/** The channels over which a login process hands clients over to pop3d workers. */
import { asError } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Connection, HalfClosable } from '../../sockets/connection.ts'
import type { Handover, HandoverChannel } from '../../sockets/engine.ts'
import { LineSplitter } from '../../wire/lines.ts'
import { CHANNEL_LINE, formatHandoff, MAX_READ_AHEAD, parseHandoffReply } from '../../wire/workers/maildrop-worker.ts'

/** Lines of a worker are short. */
const MAX_REPLY_LINE = 64

/**
 * The channels of this login process to pop3d workers, by the name of the worker's socket. The
 * first client of a worker opens its channel.
 */
export class HandoffSender {
  readonly #channels = new Map<string, HandoffChannel>()
  readonly #handover: Handover
  readonly #log: Log

  constructor(handover: Handover, log: Log) {
    this.#handover = handover
    this.#log = log
  }

  /** The open channel, or undefined if the worker cannot be reached. */
  to(path: string): HandoffChannel | undefined | Promise<HandoffChannel | undefined> {
    const known = this.#channels.get(path)
    if (known !== undefined) return known.isOpen ? known : known.opened
    const channel = new HandoffChannel(path, this.#handover, this.#log, () => {
      if (this.#channels.get(path) === channel) this.#channels.delete(path)
    })
    this.#channels.set(path, channel)
    return channel.opened
  }
}

/** Passes clients' sockets to one worker (src/wire/workers/maildrop-worker.ts). */
export class HandoffChannel {
  /** Fulfilled with the channel when sockets can be passed, with undefined if that failed. */
  readonly opened: Promise<HandoffChannel | undefined>
  readonly #socket: HandoverChannel | undefined
  readonly #log: Log
  readonly #retire: () => void
  readonly #sessions = new Map<number, () => void>()
  readonly #open = Promise.withResolvers<HandoffChannel | undefined>()
  #last = 0
  #isOpen = false

  /** `retire` is called when no more sockets can be passed. */
  constructor(path: string, handover: Handover, log: Log, retire: () => void) {
    this.#log = log
    this.#retire = retire
    this.opened = this.#open.promise
    this.#socket = this.#connect(path, handover)
  }

  /** Sockets may be passed now. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /**
   * Hands a client's socket over, with its unused input; the socket is closed here. `ended` is
   * called when the session ends. False, and the socket is unchanged, if it cannot be handed over
   * now.
   */
  pass(client: Connection, ticket: string, readAhead: Uint8Array, ended: () => void): boolean {
    const octets = readAhead.length
    if (!this.#isOpen || this.#socket === undefined || octets > MAX_READ_AHEAD) return false
    const n = this.#last + 1
    if (!this.#socket.give(client, `${formatHandoff({ n, octets, ticket })}\n`, readAhead)) return false
    this.#last = n
    this.#sessions.set(n, ended)
    return true
  }

  /**
   * As `pass`, for a client whose octets are decrypted here. Returns the near end of a connection;
   * the worker gets the far end in place of the client's socket. Undefined if the worker cannot
   * get one now.
   */
  bridge(ticket: string, readAhead: Uint8Array): HalfClosable | undefined {
    const octets = readAhead.length
    if (!this.#isOpen || this.#socket === undefined || octets > MAX_READ_AHEAD) return undefined
    const n = this.#last + 1
    const near = this.#socket.bridge(`${formatHandoff({ n, octets, ticket })}\n`, readAhead)
    if (near !== undefined) this.#last = n
    return near
  }

  #connect(path: string, handover: Handover): HandoverChannel | undefined {
    const replies = new LineSplitter(MAX_REPLY_LINE)
    try {
      const socket = handover.connect(path, {
        data: octets => {
          for (const line of replies.push(octets).lines) this.#receive(line)
        },
        end: () => socket.destroy(),
        closed: () => this.#close(),
      })
      socket.write(`${CHANNEL_LINE}\n`)
      return socket
    } catch (error) {
      this.#log.debug('handoff_failed', { path, reason: asError(error) })
      queueMicrotask(() => this.#close())
      return undefined
    }
  }

  #receive(line: string): void {
    const reply = parseHandoffReply(line)
    switch (reply?.type) {
      case 'open':
        this.#isOpen = true
        this.#open.resolve(this)
        return
      case 'ended':
        this.#end(reply.n)
        return
      case 'closing':
        this.#isOpen = false
        this.#retire()
        // Earlier handoffs are in transit, and the worker still reports their end.
        this.#socket?.end()
        return
      case undefined:
        this.#log.error('handoff_reply_unknown', { line })
    }
  }

  #end(n: number): void {
    const ended = this.#sessions.get(n)
    this.#sessions.delete(n)
    ended?.()
  }

  /** The worker has ended, and its sessions with it. */
  #close(): void {
    this.#isOpen = false
    this.#open.resolve(undefined)
    this.#retire()
    for (const n of [...this.#sessions.keys()]) this.#end(n)
  }
}
