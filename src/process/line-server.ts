/** A server for short requests and answers, with bounds for everything that a peer can cause. */
import { createServer, type Server, type Socket } from 'node:net'
import { asError, messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { peerCredentials } from '../libc/sockets.ts'
import { peerIsAllowed } from './unix-sockets.ts'

/**
 * Options of a server for lines, netstrings or blocks.
 *
 * Bounds: at most `maxOpen` requests of a connection are in progress. The rest of the input waits,
 * at most one read (64 KiB), and reading pauses. Reading also pauses while the peer leaves answers
 * unread. At most `maxConnections` are open. For one more, the server closes the connection that
 * has been silent longest and has no request in progress. `cut` limits the length of a request by
 * throwing.
 *
 * An answer that fails is logged and replaced by `failure`, so that it affects neither the process
 * nor later requests.
 */
export type LineServerOptions<Request> = {
  /** Makes the service of a connection. */
  readonly newService: (peer: Peer) => LineService<Request>
  readonly limits: () => LineServerLimits
  /**
   * `arrival`: answers are sent in the order of their requests; `any`: in the order in which they
   * are ready.
   */
  readonly order: 'arrival' | 'any'
  /** Octets that replace an answer that failed; undefined: the connection is closed. */
  readonly failure: string | undefined
  /** Accounts that may connect (peerIsAllowed). Undefined: only the mode of the socket decides. */
  readonly uids?: ReadonlySet<number> | undefined
  /** Called for each connection that `uids` refuses. */
  readonly onForeignPeer?: () => void
  /** Name of the service, for the log. */
  readonly name: string
  readonly log: () => Log
}

export type LineServerLimits = {
  readonly maxConnections: number
  /** Number of requests of one connection in progress. */
  readonly maxOpen: number
  /** Milliseconds after which a silent connection without a request is closed; 0: never. */
  readonly idleMs: number
}

/** `uid`: the account at the other end of a Unix socket; undefined for TCP. */
export type Peer = { readonly uid: number | undefined }

/** The service of one connection. */
export type LineService<Request> = {
  /**
   * The requests that these octets complete. Throws if the peer does not speak the protocol: the
   * connection is closed.
   */
  cut(chunk: Buffer): readonly Request[]
  /** The answer with all its delimiters. Undefined: this request gets no answer. */
  answer(request: Request): Promise<string> | undefined
}

/** Serves connections until `close`; see LineServerOptions for the bounds. */
export class LineServer<Request> {
  readonly server: Server
  readonly #options: LineServerOptions<Request>
  /** The connections in the order of their last requests, the one that was silent longest first. */
  readonly #connections = new Set<LineConnection<Request>>()
  #isFull = false

  constructor(options: LineServerOptions<Request>) {
    this.#options = options
    // A client may end its output directly after its request.
    this.server = createServer({ allowHalfOpen: true }, socket => this.#accept(socket))
  }

  /** Stops accepting. Open connections still get answers. */
  stopListening(): void {
    this.server.close()
  }

  /**
   * Accepts no connection and takes no further request. A connection ends when its requests in
   * progress are answered, or at `close`.
   */
  drain(): void {
    this.stopListening()
    for (const connection of this.#connections) connection.drain()
  }

  /** Stops accepting, and ends each connection after its pending answers. */
  close(): void {
    this.stopListening()
    for (const connection of this.#connections) connection.end()
  }

  #accept(socket: Socket): void {
    const { uids, onForeignPeer } = this.#options
    // The peer has closed the connection, so the answers are dropped.
    socket.on('error', () => socket.destroy())
    if (uids !== undefined && !peerIsAllowed(socket, uids)) {
      onForeignPeer?.()
      socket.destroy()
      return
    }
    if (!this.#makeRoom()) {
      socket.destroy()
      return
    }
    const connection = new LineConnection(socket, this.#options, () => {
      this.#connections.delete(connection)
      this.#connections.add(connection)
    })
    this.#connections.add(connection)
    socket.on('close', () => this.#connections.delete(connection))
  }

  #makeRoom(): boolean {
    const { limits, log, name } = this.#options
    if (this.#connections.size < limits().maxConnections) {
      this.#isFull = false
      return true
    }
    if (!this.#isFull) log().warn('connections_exhausted', { service: name, connections: this.#connections.size })
    this.#isFull = true
    for (const connection of this.#connections) {
      if (!connection.isIdle) continue
      this.#connections.delete(connection)
      connection.close()
      return true
    }
    return false
  }
}

/** An answer in the order of requests. `text` undefined: it is pending. */
type Slot = { text: string | undefined }

class LineConnection<Request> {
  readonly #socket: Socket
  readonly #options: LineServerOptions<Request>
  readonly #service: LineService<Request>
  readonly #onActivity: () => void
  /** Complete requests that are not in progress yet. */
  #waiting: Request[] = []
  /** Requests in progress, in their order if the answers keep it. */
  readonly #slots: Slot[] = []
  #open = 0
  #ready = ''
  #isFlushDue = false
  #isEnding = false
  /** No further request is taken. */
  #isDraining = false
  #silence: NodeJS.Timeout | undefined

  constructor(socket: Socket, options: LineServerOptions<Request>, onActivity: () => void) {
    this.#socket = socket
    this.#options = options
    this.#onActivity = onActivity
    this.#service = options.newService({ uid: uidOf(socket) })
    socket.on('data', chunk => this.#take(chunk))
    socket.on('drain', () => {
      this.#silence?.refresh()
      this.#begin()
    })
    socket.on('end', () => this.end())
    const { idleMs } = options.limits()
    if (idleMs === 0) return
    this.#silence = setTimeout(() => {
      if (this.isIdle) this.close()
      else this.#silence?.refresh()
    }, idleMs)
    socket.on('close', () => clearTimeout(this.#silence))
  }

  /** No request is in progress. Requests may wait nevertheless, if the peer does not read. */
  get isIdle(): boolean {
    return this.#open === 0 && this.#ready === ''
  }

  close(): void {
    this.#socket.destroy()
  }

  /** Takes no further request, and ends the connection after the pending answers. */
  drain(): void {
    if (this.#isDraining) return
    this.#isDraining = true
    this.#waiting = []
    this.#socket.pause()
    this.#endIfDone()
  }

  /**
   * Ends the connection after the pending answers. After `drain` no answer is expected any more, so
   * the connection ends at once.
   */
  end(): void {
    if (this.#isDraining) {
      this.#flush()
      this.#endSocket()
      return
    }
    this.#isEnding = true
    this.#endIfDone()
  }

  #take(chunk: Buffer): void {
    if (this.#isDraining) return
    const { log, name } = this.#options
    try {
      const requests = this.#service.cut(chunk)
      // Only complete requests count as activity, because a peer could send one octet by octet.
      if (requests.length > 0) {
        this.#onActivity()
        this.#silence?.refresh()
      }
      this.#waiting = [...this.#waiting, ...requests]
    } catch (error) {
      log().warn('request_refused', { service: name, reason: messageOf(error) })
      this.close()
      return
    }
    this.#begin()
  }

  /** Begins further requests as far as the limits permit, and reads on only if none waits. */
  #begin(): void {
    const socket = this.#socket
    if (socket.destroyed || this.#isDraining) return
    const { maxOpen } = this.#options.limits()
    let begun = 0
    for (const request of this.#waiting) {
      if (this.#open >= maxOpen || socket.writableNeedDrain) break
      begun += 1
      this.#ask(request)
    }
    this.#waiting = this.#waiting.slice(begun)
    const isHeldBack = this.#waiting.length > 0 || this.#open >= maxOpen || socket.writableNeedDrain
    if (isHeldBack !== socket.isPaused()) {
      if (isHeldBack) socket.pause()
      else socket.resume()
    }
  }

  #ask(request: Request): void {
    const slot: Slot = { text: undefined }
    let answer: Promise<string> | undefined
    try {
      answer = this.#service.answer(request)
    } catch (error) {
      answer = Promise.reject(error)
    }
    if (answer === undefined) return
    this.#open += 1
    if (this.#options.order === 'arrival') this.#slots.push(slot)
    answer.then(
      text => this.#answered(slot, text),
      (error: unknown) => this.#failed(slot, error),
    )
  }

  #failed(slot: Slot, error: unknown): void {
    const { log, name, failure } = this.#options
    log().error('answer_failed', { service: name, reason: asError(error) })
    if (failure === undefined) this.close()
    else this.#answered(slot, failure)
  }

  #answered(slot: Slot, text: string): void {
    this.#open -= 1
    if (this.#socket.destroyed) return
    if (this.#options.order === 'any') {
      this.#ready += text
    } else {
      slot.text = text
      for (let first = this.#slots[0]; first?.text !== undefined; first = this.#slots[0]) {
        this.#ready += first.text
        this.#slots.shift()
      }
    }
    if (this.#isFlushDue || this.#ready === '') return
    this.#isFlushDue = true
    // Answers of one turn of the event loop go out in one write.
    setImmediate(() => this.#flush())
  }

  #flush(): void {
    this.#isFlushDue = false
    const text = this.#ready
    this.#ready = ''
    if (this.#socket.writable && text !== '') this.#socket.write(text)
    this.#begin()
    this.#endIfDone()
  }

  #endIfDone(): void {
    if (!this.isIdle || this.#waiting.length > 0) return
    if (this.#isDraining) this.#endSocket()
    else if (this.#isEnding) this.#socket.end()
  }

  /** Closes the connection after its output; input that waits is discarded. */
  #endSocket(): void {
    this.#socket.end(() => this.#socket.destroy())
  }
}

function uidOf(socket: Socket): number | undefined {
  try {
    return peerCredentials(socket).uid
  } catch {
    return undefined // The socket is TCP, or the peer has closed it.
  }
}
