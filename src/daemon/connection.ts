/** What happens on a connection. */
export interface ConnectionListener {
  /** Octets have come; they are the listener's to keep. */
  data(octets: Buffer): void
  /** The peer sends no more. It may still read. */
  end(): void
  /** Everything that was written is on its way. */
  drained(): void
  /** The connection is closed, whoever closed it: nothing comes after this. */
  closed(): void
}

/** A byte stream with a client at its other end, whatever carries it. It is paused until it is first resumed. */
export interface Connection {
  /** Tells this listener from now on, instead of the one before; undefined: nobody. */
  listen(listener: ConnectionListener | undefined): void
  readonly isPaused: boolean
  /** What comes stays with the kernel until `resume`. */
  pause(): void
  resume(): void
  /** Sends a text in Latin-1 and octets behind it, at the latest with this turn of the event loop; both may change once this returns. Nothing happens on a closed connection. */
  write(text: string, octets?: Uint8Array): void
  /** Sends octets that must not change until this is fulfilled: true when they are on their way, false if the connection is closed. */
  writeChunk(octets: Uint8Array): Promise<boolean>
  /** Octets written that the kernel has not taken yet. */
  readonly unsent: number
  readonly isDestroyed: boolean
  /** Calls back once nothing has been read or written for so many milliseconds. */
  onIdle(milliseconds: number, idle: () => void): void
  /** Sends last words, in Latin-1, and closes when everything written is on its way; what still comes is thrown away. */
  end(lastWords?: string): void
  /** Closes at once; what is unsent is lost. */
  destroy(): void
}
