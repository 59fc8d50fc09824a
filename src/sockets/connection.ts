/** What happens on a connection. */
export interface ConnectionListener {
  /** Octets have come; they are the listener's to keep. */
  data(octets: Buffer): void
  /** The peer sends no more. It may still read. */
  end(): void
  /**
   * `unsent` has come down to 0. It is told after octets were left unsent at the end of a turn of the event loop; octets that
   * the kernel takes in the turn in which they are written need not be told of. Never from inside `write` or `writeChunk`.
   */
  drained(): void
  /** The connection is closed, whoever closed it: nothing comes after this. It may be told from inside `destroy` and `end`. */
  closed(): void
}

/** A byte stream with a client at its other end, whatever carries it. It is paused until it is first resumed. */
export interface Connection {
  /** Tells this listener from now on, instead of the one before; undefined: nobody. On a closed connection it is told `closed`. */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /**
   * The listener is told of no octets and no end until `resume`; they stay with the kernel. If the client resets the
   * connection meanwhile, `closed` may come at once, or only with the next octets written or after `resume`: a paused stream
   * of the runtime does not look at its socket. A session that may pause for long needs a timer.
   */
  pause(): void
  resume(): void
  /** Sends a text in Latin-1 and octets behind it, at the latest with this turn of the event loop; both may change once this returns. Nothing happens on a closed connection. */
  write(text: string, octets?: Uint8Array): void
  /** Sends octets that must not change until this is fulfilled: true when they are on their way, false if the connection is closed or ending. */
  writeChunk(octets: Uint8Array): Promise<boolean>
  /** Octets written that the kernel has not taken. Those written in this turn of the event loop may not count until it ends. */
  readonly unsent: number
  readonly isDestroyed: boolean
  /** Calls back once nothing has been read or written for so many milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /** Sends last words, in Latin-1, and closes when everything written is on its way; what still comes is thrown away. */
  end(lastWords?: string): void
  /** Closes at once; what is unsent is lost. */
  destroy(): void
}
