/** Relaying octets between two streams, with one buffer for the reads of all of them. */
import { type OnReadOpts, Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import { TLSSocket } from 'node:tls'

/**
 * One buffer into which every socket of this process that asks for it reads, in turn. Without it
 * the runtime takes 64 KB of fresh memory for each read, which is half the cost of a download. The
 * size is what a slow reader may keep of us in encrypted form.
 */
const SHARED = Buffer.allocUnsafeSlow(131_072)

/**
 * Takes a chunk that is good only until it returns; false to be given no more until the socket is
 * resumed.
 */
type Sink = (chunk: Buffer) => boolean

const sinks = new WeakMap<Duplex, { sink: Sink }>()

/**
 * Connects by `connect`, whose options get our `onread`. Until a sink is set (`setSink`) the socket
 * gives out copies as ordinary `data`
 * events: add a listener before the first byte can come, or pause it.
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
 * Gives the socket's chunks to a sink instead of `data` listeners. False if it is no socket of
 * connectSharingReads.
 */
export function setSink(stream: Duplex, sink: Sink): boolean {
  const holder = sinks.get(stream)
  if (holder !== undefined) holder.sink = sink
  return holder !== undefined
}

export type RelayOptions = {
  /**
   * Milliseconds without a byte in either direction after which both streams are closed; undefined:
   * no limit.
   */
  readonly idleLimit?: number | undefined
  /**
   * Milliseconds that a stream is given to take its last bytes after the other one broke. Default 5
   * s.
   */
  readonly lingerLimit?: number | undefined
  /**
   * The server's socket is reset if the client breaks off, so that the server does not take the
   * client for one that has only stopped sending. For protocols in which a session that breaks off
   * changes nothing: octets on their way may be lost.
   */
  readonly resetsServer?: boolean
  /** Closes both streams at once. */
  readonly signal?: AbortSignal | undefined
}

/** Why a relay ended, and what it carried. */
export type RelayEnd = {
  /**
   * `ended`: both sides ended in order. `left`: the client closed without ending, and lacked
   * nothing: the server had ended, or
   * the client had said QUIT, or nothing at all. `broken`: one failed or closed without ending.
   * `idle`, `aborted`: see RelayOptions.
   */
  readonly reason: 'ended' | 'left' | 'broken' | 'idle' | 'aborted'
  /** Who ended or broke first; undefined if neither did. */
  readonly first: 'client' | 'server' | undefined
  readonly error: Error | undefined
  readonly bytesFromClient: number
  readonly bytesFromServer: number
}

/**
 * Joins two streams until both have ended: bytes in order, back-pressure and half-close passed on
 * in both directions. Both streams must allow half-open connections, or the first end closes
 * everything. Bytes read earlier are unshifted by the caller. Never rejects. When the promise is
 * fulfilled both streams are destroyed and only a listener that swallows late errors is left on
 * them.
 */
export function relay(client: Duplex, server: Duplex, options: RelayOptions = {}): Promise<RelayEnd> {
  return new Promise(resolve => {
    new Relay(client, server, options, resolve).start()
  })
}

/** QUIT with its line end. */
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
  /** The last octets of the client's last chunk. */
  #lastOfClient = ''
  #bytesFromServer = 0
  #finished = 0
  #first: Side | undefined
  #broken: { readonly reason: 'left' | 'broken'; readonly error: Error | undefined } | undefined
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
    if (this.#broken === undefined) this.#join(this.#server, this.#client, 'server')
  }

  /** One direction, and the fate of its source. */
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
    // A TLS socket with nothing under way has encrypted the chunk when write() returns, so it may
    // read from the shared buffer.
    const sharesReads = setSink(source, chunk => {
      const isTakenAtOnce = target instanceof TLSSocket && target.writableLength === 0
      data(isTakenAtOnce ? chunk : Buffer.from(chunk))
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
    const fail = (error: Error) => this.#break(side, error, side === 'client' && this.#lacksNothing())
    const close = () => {
      // An orderly stream closes after both its halves are done; the other half of the relay may
      // still have bytes to deliver.
      if (!(source.readableEnded && source.writableFinished))
        this.#break(side, undefined, side === 'client' && this.#lacksNothing())
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
    // A stream read to its end before the relay began will not say so again.
    if (source.readableEnded) end()
    else if (target.writableNeedDrain) source.pause()
    else source.resume()
  }

  /**
   * One side is gone: what is already on its way to the other is still delivered, then that is
   * closed too.
   */
  #break(side: Side, error: Error | undefined, hasLeft = false): void {
    if (this.#settled || this.#broken !== undefined) return
    const reason = hasLeft ? 'left' : 'broken'
    this.#broken = { reason, error: hasLeft ? undefined : error }
    this.#first ??= side
    const [gone, other] = side === 'client' ? [this.#client, this.#server] : [this.#server, this.#client]
    gone.destroy()
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
   * Many clients, and health checks, close a TLS connection without close_notify, or reset it, when
   * they are done.
   */
  #lacksNothing(): boolean {
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
      error: this.#broken?.error,
      bytesFromClient: this.#bytesFromClient,
      bytesFromServer: this.#bytesFromServer,
    })
  }
}

/** Whatever matters has been heard before; a stream without a listener would end the process. */
const swallow = (): void => {}
