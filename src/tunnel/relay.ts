/** Relaying octets between two streams, with one read buffer for all of them. */
import { type OnReadOpts, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { takesAtOnce } from '../base/node-internals.ts'

/**
 * Read buffer of all sockets of connectSharingReads. Without it, the runtime allocates 64 KiB for
 * each read, which is half the cost of a download. The size also bounds the encrypted octets that
 * wait for a slow reader.
 */
const SHARED = Buffer.allocUnsafeSlow(131_072)

/** Takes a chunk, which is valid only during the call. Returns false to pause the socket. */
type Sink = (chunk: Buffer) => boolean

const sinks = new WeakMap<Duplex, { sink: Sink }>()

/**
 * Connects by `connect`, whose options get an `onread`. Until `setSink`, the socket emits copies as
 * ordinary `data` events. Add a listener or pause the socket before the first octet can arrive.
 */
export function connectSharingReads(connect: (onread: OnReadOpts) => Socket): Socket {
  const holder: { sink: Sink } = { sink: () => false }
  const socket = connect({
    buffer: SHARED,
    callback: (octets, buffer) => holder.sink(Buffer.from(buffer.buffer, buffer.byteOffset, octets)),
  })
  holder.sink = chunk => {
    socket.emit('data', Buffer.from(chunk))
    return !socket.isPaused()
  }
  sinks.set(socket, holder)
  return socket
}

/**
 * Passes the socket's chunks to a sink instead of `data` listeners. Returns false for a socket that
 * connectSharingReads did not make.
 */
export function setSink(stream: Duplex, sink: Sink): boolean {
  const holder = sinks.get(stream)
  if (holder !== undefined) holder.sink = sink
  return holder !== undefined
}

export type RelayOptions = {
  /**
   * Milliseconds without an octet in either direction after which both streams are closed.
   * Undefined: no limit.
   */
  readonly idleLimit?: number | undefined
  /**
   * Milliseconds in which a stream may take its last octets after an error of the other one.
   * Default: 5,000.
   */
  readonly lingerLimit?: number | undefined
  /**
   * Resets the server's socket if the client breaks off, so that the server does not mistake the
   * break for a half-close. Only for protocols in which an incomplete session changes nothing,
   * because octets in transit may be lost.
   */
  readonly resetsServer?: boolean
  /** Closes both streams at once. */
  readonly signal?: AbortSignal | undefined
}

/** The end of a relay, and the number of octets that it carried. */
export type RelayEnd = {
  /**
   * `ended`: both sides ended in order. `left`: the client closed the connection without an end,
   * but had got all octets: the server had ended, or the client had sent QUIT or nothing.
   * `failed`: a side failed or closed without an end. `idle`, `aborted`: see RelayOptions.
   */
  readonly reason: 'ended' | 'left' | 'failed' | 'idle' | 'aborted'
  /** The side that ended or broke first; undefined if the relay ended by time or signal. */
  readonly first: 'client' | 'server' | undefined
  readonly error: Error | undefined
  readonly bytesFromClient: number
  readonly bytesFromServer: number
}

/**
 * Joins two streams until both have ended: octets in order, with back-pressure and half-close in
 * both directions. Both streams must allow half-open connections; otherwise the first end closes
 * everything. The caller has unshifted octets that were read earlier.
 *
 * Never rejects. At the end both streams are destroyed, and a listener that ignores late errors
 * stays on them.
 */
export function relay(client: Duplex, server: Duplex, options: RelayOptions = {}): Promise<RelayEnd> {
  return new Promise(resolve => {
    new Relay(client, server, options, resolve).start()
  })
}

/** Length of QUIT with CRLF. */
const QUIT_OCTETS = 6

type Side = 'client' | 'server'

class Relay {
  readonly #client: Duplex
  readonly #server: Duplex
  readonly #options: RelayOptions
  readonly #resolve: (end: RelayEnd) => void
  readonly #undo: (() => void)[] = []
  #idle: NodeJS.Timeout | undefined
  #bytesFromClient = 0
  /** The last octets of the client's newest chunk. */
  #lastOfClient = ''
  #bytesFromServer = 0
  #finished = 0
  #first: Side | undefined
  #failure: { readonly reason: 'left' | 'failed'; readonly error: Error | undefined } | undefined
  #settled = false

  constructor(client: Duplex, server: Duplex, options: RelayOptions, resolve: (end: RelayEnd) => void) {
    this.#client = client
    this.#server = server
    this.#options = options
    this.#resolve = resolve
  }

  start(): void {
    const { idleLimit, signal } = this.#options
    this.#client.on('error', swallow)
    this.#server.on('error', swallow)
    if (signal?.aborted === true) {
      this.#settle('aborted')
      return
    }
    if (signal !== undefined) {
      const abort = () => this.#settle('aborted')
      signal.addEventListener('abort', abort)
      this.#undo.push(() => signal.removeEventListener('abort', abort))
    }
    if (idleLimit !== undefined) this.#idle = setTimeout(() => this.#settle('idle'), idleLimit)
    this.#join(this.#client, this.#server, 'client')
    if (this.#failure === undefined) this.#join(this.#server, this.#client, 'server')
  }

  /** Relays one direction and handles the end of its source. */
  #join(source: Duplex, target: Duplex, side: Side): void {
    const data =
      side === 'client'
        ? (chunk: Buffer) => {
            this.#bytesFromClient += chunk.length
            this.#lastOfClient = chunk.toString('latin1', chunk.length - QUIT_OCTETS)
            this.#idle?.refresh()
            if (!target.write(chunk)) source.pause()
          }
        : (chunk: Buffer) => {
            this.#bytesFromServer += chunk.length
            this.#idle?.refresh()
            if (!target.write(chunk)) source.pause()
          }
    // The chunk lies in the shared buffer, which the next read of any socket overwrites.
    const sharesReads = setSink(source, chunk => {
      data(takesAtOnce(target) ? chunk : Buffer.from(chunk))
      return !target.writableNeedDrain
    })
    const drain = () => {
      this.#idle?.refresh()
      source.resume()
    }
    const end = () => {
      this.#first ??= side
      target.end()
    }
    const finish = () => {
      this.#finished += 1
      if (this.#finished === 2 && source.readableEnded && target.readableEnded) this.#settle('ended')
    }
    const fail = (error: Error) => this.#break(side, error, side === 'client' && this.#clientHasAll())
    const close = () => {
      // A stream that ends in order emits `close` after both its halves are done. The other
      // direction may still have octets to deliver.
      if (!(source.readableEnded && source.writableFinished))
        this.#break(side, undefined, side === 'client' && this.#clientHasAll())
    }
    if (source.destroyed) {
      this.#break(side, source.errored ?? undefined)
      return
    }
    if (!sharesReads) source.on('data', data)
    source.on('end', end)
    source.on('error', fail)
    source.on('close', close)
    target.on('drain', drain)
    target.on('finish', finish)
    this.#undo.push(() => {
      source.off('data', data)
      source.off('end', end)
      source.off('error', fail)
      source.off('close', close)
      target.off('drain', drain)
      target.off('finish', finish)
    })
    // A stream that was read to its end before the relay began emits no further `end`.
    if (source.readableEnded) end()
    else if (target.writableNeedDrain) source.pause()
    else source.resume()
  }

  /**
   * Handles the failure of a side: the octets for the other side are still delivered, then the
   * other side is closed.
   */
  #break(side: Side, error: Error | undefined, hasLeft = false): void {
    if (this.#settled || this.#failure !== undefined) return
    const reason = hasLeft ? 'left' : 'failed'
    this.#failure = { reason, error: hasLeft ? undefined : error }
    this.#first ??= side
    const [failed, other] = side === 'client' ? [this.#client, this.#server] : [this.#server, this.#client]
    failed.destroy()
    if (!hasLeft && side === 'client' && this.#options.resetsServer === true && other instanceof Socket) {
      other.resetAndDestroy()
      this.#settle(reason)
      return
    }
    if (other.destroyed || other.writableFinished) {
      this.#settle(reason)
      return
    }
    const done = () => this.#settle(reason)
    const linger = setTimeout(done, this.#options.lingerLimit ?? 5000)
    other.on('finish', done)
    other.on('close', done)
    this.#undo.push(() => {
      clearTimeout(linger)
      other.off('finish', done)
      other.off('close', done)
    })
    other.end()
  }

  /**
   * True if a client that closes now has got all octets. Many clients and health checks close or
   * reset a TLS connection without close_notify, which is then no fault.
   */
  #clientHasAll(): boolean {
    if (this.#client.writableLength > 0) return false
    const hasQuit = this.#bytesFromServer > 0 && /QUIT\r?\n$/i.test(this.#lastOfClient)
    return this.#server.readableEnded || this.#bytesFromClient === 0 || hasQuit
  }

  #settle(reason: RelayEnd['reason']): void {
    if (this.#settled) return
    this.#settled = true
    clearTimeout(this.#idle)
    for (const undo of this.#undo) undo()
    this.#client.destroy()
    this.#server.destroy()
    this.#resolve({
      reason,
      first: this.#first,
      error: this.#failure?.error,
      bytesFromClient: this.#bytesFromClient,
      bytesFromServer: this.#bytesFromServer,
    })
  }
}

/**
 * Errors after the end of the relay are ignored. An `error` event without a listener would end the
 * process.
 */
const swallow = (): void => {}
