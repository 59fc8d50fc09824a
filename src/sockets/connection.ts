import type { Duplex } from 'node:stream'

/** What happens on a connection. */
export interface ConnectionListener {
  /** Octets have come; they are the listener's to keep. */
  data(octets: Buffer): void
  /** The peer sends no more. It may still read. */
  end(): void
  /**
   * `unsent` has come down to 0. It is told after octets were left unsent at the end of a turn of
   * the event loop; octets that
   * the kernel takes in the turn in which they are written need not be told of. Never from inside
   * `write` or `writeChunk`.
   */
  drained(): void
  /**
   * The connection is closed, whoever closed it: nothing comes after this. It may be told from
   * inside `destroy` and `end`.
   */
  closed(): void
}

/** A byte stream with a client at its other end, whatever carries it. It is paused until it is first resumed. */
export interface Connection {
  /**
   * Tells this listener from now on, instead of the one before; undefined: nobody. On a closed
   * connection it is told `closed`.
   */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /**
   * The listener is told of no octets and no end until `resume`; they stay with the kernel. If the client resets the
   * connection meanwhile, `closed` may come at once, or only with the next octets written or after
   * `resume`: a paused stream
   * of the runtime does not look at its socket. A session that may pause for long needs a timer.
   */
  pause(): void
  resume(): void
  /**
   * Sends a text in Latin-1 and octets behind it, at the latest with this turn of the event loop;
   * both may change once this returns. Nothing happens on a closed connection.
   */
  write(text: string, octets?: Uint8Array): void
  /**
   * Sends octets that must not change until this is fulfilled: true when they are on their way,
   * false if the connection is closed or ending.
   */
  writeChunk(octets: Uint8Array): Promise<boolean>
  /**
   * Reads at most so many octets at a time from now on, where the engine can: they are the octets
   * that a listener which pauses
   * has to keep. Without it, and on streams of the runtime, one read brings up to 64 KiB.
   */
  readAtMost(octets: number): void
  /**
   * Octets written that the kernel has not taken. Those written in this turn of the event loop may
   * not count until it ends.
   */
  readonly unsent: number
  readonly isDestroyed: boolean
  /**
   * Calls back once the client's connection is closed here, before the listener is told `closed`;
   * also if it closes as the
   * stream that it became. Never after `handOver`. On a closed connection the callback comes at once, in a microtask.
   */
  onceClosed(callback: () => void): void
  /** Calls back once nothing has been read or written for so many milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /**
   * Sends last words, in Latin-1, and closes when everything written is on its way; what still
   * comes is thrown away.
   */
  end(lastWords?: string): void
  /** Closes at once, also the stream that the connection became; octets that are unsent are lost. */
  destroy(): void
  /**
   * The same connection as a stream of the runtime, paused, that first sends what is unsent. This
   * object is done with it:
   * `isDestroyed` is true, and the listener is told nothing more. An error destroys the stream.
   * Throws if the connection is closed.
   */
  toStream(): Duplex
  /**
   * Lets another process have the connection: `give` is called with the descriptor, and returns
   * whether the other process
   * gets it. If so, the connection is closed here, and nobody is told. Octets read so far are not
   * part of it. False, and
   * nothing has happened, if `give` says so, with octets unsent, and wherever octets pass through
   * this process: TLS, relays, and
   * all connections of the engine `node`.
   */
  handOver(give: (descriptor: number) => boolean): boolean
}
