/** The interface of every client connection, and the idle timer of its implementations. */
import type { Duplex } from 'node:stream'

/** Callbacks of a connection. */
export interface ConnectionListener {
  /** Octets were read. The listener may keep the buffer. */
  data(octets: Buffer): void
  /** The peer has ended its output. It may still read. */
  end(): void
  /**
   * `unsent` is 0 again, after octets were unsent at the end of an event loop turn. Not called for
   * octets that the kernel accepts in the turn of their write, and never from inside `write` or
   * `writeChunk`.
   */
  drained(): void
  /**
   * The connection is closed, by either side. No callback follows. May be called from inside
   * `destroy` and `end`.
   */
  closed(): void
}

/** A byte stream to a client, of either engine. It is paused until the first `resume`. */
export interface Connection {
  /**
   * Replaces the listener; undefined removes it. On a closed connection the new listener gets
   * `closed`.
   */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /**
   * Stops reading: the listener gets no octets and no end until `resume`. If the client resets the
   * connection during a pause, `closed` comes at once, with the next write, or after `resume`. A
   * paused stream of the runtime does not read its socket, so a session that may pause for long
   * needs a timer.
   */
  pause(): void
  resume(): void
  /**
   * Sends a text in Latin-1 and octets behind it, at the latest at the end of this event loop turn.
   * The caller may change the octets when the call returns. No effect on a closed connection.
   */
  write(text: string, octets?: Uint8Array): void
  /**
   * Sends octets, which must not change until the promise is fulfilled. True: the kernel has
   * accepted the octets. False: the connection is closed or ending.
   */
  writeChunk(octets: Uint8Array): Promise<boolean>
  /**
   * Limits the octets of each later read, for a listener that has to keep them during a pause.
   * Without a limit, and always on streams of the runtime, a read returns up to 64 KiB.
   */
  readAtMost(octets: number): void
  /**
   * Written octets that the kernel has not accepted. Octets written in this event loop turn may not
   * be included until the turn ends.
   */
  readonly unsent: number
  readonly isDestroyed: boolean
  /**
   * Calls back when this process has closed the client's connection, before the listener's
   * `closed`. If the connection became a stream, calls back when the stream closes. Does not call
   * back after `handOver`. On a closed connection the callback comes in a microtask.
   */
  onceClosed(callback: () => void): void
  /** Calls back if no octet is read or written for this time in milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /** Sends a last text in Latin-1, and closes when all output is sent. Discards later input. */
  end(lastText?: string): void
  /** Closes at once, also the stream that the connection became. Unsent octets are lost. */
  destroy(): void
  /**
   * Converts the connection to a stream of the runtime, which is paused and first sends the unsent
   * octets. This object is then unused: `isDestroyed` is true, and the listener gets no callback.
   * An error destroys the stream. Throws if the connection is closed.
   */
  toStream(): Duplex
  /**
   * Hands the connection over to another process. `give` gets the descriptor, and returns true if
   * the other process will get it. The connection is then closed here without a callback. The
   * caller sends the octets that were read earlier.
   *
   * Returns false, without an effect, if `give` returns false or if octets are unsent. Connections
   * whose octets pass through this process always return false: TLS, relays, and all connections of
   * the engine `node`.
   */
  handOver(give: (descriptor: number) => boolean): boolean
}

/** Calls back after a time without activity, if it is set. */
export class IdleTimer {
  #timer: NodeJS.Timeout | undefined

  /** Starts the time, in milliseconds, from 0. */
  set(milliseconds: number, idle: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(idle, milliseconds)
  }

  /** Starts the time again, because of an activity. */
  refresh(): void {
    this.#timer?.refresh()
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}

/** A connection whose output can be ended while its input goes on. */
export interface HalfClosable extends Connection {
  /** Ends the output after the written octets, and continues to read. */
  endOutput(): void
}
