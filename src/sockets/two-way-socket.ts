/** The sockets of the SMTP front, whose two directions end separately. */

/** Callbacks of the owner of a TwoWaySocket. */
export type TwoWayListener = {
  /** Octets were read. They are valid only during the call. */
  data(octets: Uint8Array): void
  /** The peer has ended its output or closed. Called once, after all input. */
  ended(): void
  /** Unsent octets were sent, or dropped because the peer has closed. */
  room(): void
}

/**
 * A stream socket whose two directions end separately. A front between two peers needs two
 * properties that a `Connection` does not have:
 *
 * - The input of a peer that has closed is still read.
 * - The output can end while the input continues.
 *
 * The socket is paused when it is made. No callback is called from inside a method.
 */
export interface TwoWaySocket {
  /** Written octets that the kernel has not accepted. */
  readonly unsent: number
  /** Sends small output without delay (TCP_NODELAY, tcp(7)). No effect without TCP. */
  noDelay(): void
  pause(): void
  resume(): void
  /**
   * Sends octets. The caller may change the octets when the call returns. No effect if the output
   * has ended, or if the peer has closed.
   */
  write(octets: Uint8Array): void
  /** Ends the output after the written octets, and continues to read. */
  endOutput(): void
  /** Closes at once. No callback is called. */
  destroy(): void
}

/** Makes a socket of a descriptor that the caller of this function has chosen. Throws. */
export type OpenTwoWay = (listener: TwoWayListener) => TwoWaySocket
