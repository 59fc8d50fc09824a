/** The sockets of the SMTP front, whose two directions end separately. */
import { closeSync } from 'node:fs'
import { BROKEN, HUNG_UP, READABLE, WRITABLE } from '../libc/epoll.ts'
import { endOutput, inheritNoDelay, isLater, openSocketPair, receiveInto, sendFrom } from '../libc/sockets.ts'
import { type Registration, socketLoop } from './event-loop.ts'

/** Callbacks of the owner of a TwoWaySocket. */
export type TwoWayListener = {
  /** Octets were read. They are valid only during the call. */
  data(octets: Uint8Array): void
  /** The peer has ended its output or closed. Called once, after all input. */
  ended(): void
  /** Unsent octets were sent, or dropped because the peer has closed. */
  room(): void
}

/** The buffer of all reads of all these sockets. It holds nothing between two reads. */
const INPUT = Buffer.allocUnsafeSlow(65_536)
/** Maximum full buffers per wake-up, so that one socket cannot starve others. */
const AT_A_TIME = 8
const NOTHING: Buffer = Buffer.alloc(0)

/**
 * A stream socket in the socket loop whose two directions end separately. A front between two peers
 * needs three properties that a `Connection` does not have:
 *
 * - The input of a peer that has closed is still read.
 * - The output can end while the input continues.
 * - Input is not copied.
 */
export class TwoWaySocket {
  readonly #fd: number
  readonly #listener: TwoWayListener
  /**
   * Undefined after a hang-up of a socket that is paused or whose input has ended, because epoll
   * would report the hang-up at every turn.
   */
  #registration: Registration | undefined
  #unsent: Buffer = NOTHING
  #isPaused = true
  #inputEnded = false
  #isEnding = false
  #outputEnded = false
  #isDestroyed = false

  /**
   * Takes the descriptor over. The socket is paused. Throws SystemCallError; the caller then still
   * owns the descriptor.
   */
  constructor(fd: number, listener: TwoWayListener) {
    this.#fd = fd
    this.#listener = listener
    this.#registration = socketLoop().add(fd, 0, this.#ready)
  }

  /** Like the constructor, but closes the descriptor if it throws. */
  static adopt(fd: number, listener: TwoWayListener): TwoWaySocket {
    try {
      return new TwoWaySocket(fd, listener)
    } catch (error) {
      closeSync(fd)
      throw error
    }
  }

  /**
   * Makes a pair of connected descriptors. They are blocking, because a program may run on the
   * second one. Throws SystemCallError.
   */
  static pair(): readonly [number, number] {
    return openSocketPair()
  }

  /** Sends small output without delay (TCP_NODELAY, tcp(7)). No effect without TCP. */
  noDelay(): void {
    inheritNoDelay(this.#fd)
  }

  /** Written octets that the kernel has not accepted. */
  get unsent(): number {
    return this.#unsent.length
  }

  pause(): void {
    if (this.#isPaused) return
    this.#isPaused = true
    this.#watch()
  }

  resume(): void {
    if (!this.#isPaused || this.#isDestroyed) return
    this.#isPaused = false
    this.#watch()
  }

  /**
   * Sends octets. The caller may change the octets when the call returns. No effect if the output
   * has ended, or if the peer has closed.
   */
  write(octets: Uint8Array): void {
    if (this.#isEnding || this.#outputEnded || octets.length === 0) return
    const sent = this.#unsent.length > 0 ? 0 : this.#send(octets)
    if (sent === octets.length || this.#outputEnded) return
    this.#unsent = Buffer.concat([this.#unsent, octets.subarray(sent)])
    this.#watch()
  }

  /** Ends the output after the written octets, and continues to read. */
  endOutput(): void {
    if (this.#isEnding || this.#isDestroyed) return
    this.#isEnding = true
    if (this.#unsent.length === 0) this.#shut()
  }

  /** Closes at once. No callback is called. */
  destroy(): void {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    this.#outputEnded = true
    this.#unsent = NOTHING
    this.#registration?.remove()
    closeSync(this.#fd)
  }

  readonly #ready = (events: number): void => {
    const hasEnded = (events & (BROKEN | HUNG_UP)) !== 0
    if (this.#unsent.length > 0 && (hasEnded || (events & WRITABLE) !== 0)) this.#flush()
    if (this.#isDestroyed) return
    if (!this.#isPaused && !this.#inputEnded) this.#read()
    else if (hasEnded) {
      this.#registration?.remove()
      this.#registration = undefined
    }
  }

  #read(): void {
    for (let reads = 0; reads < AT_A_TIME && !this.#isPaused && !this.#isDestroyed; reads += 1) {
      const count = receiveInto(this.#fd, INPUT)
      if (count > 0) {
        this.#listener.data(INPUT.subarray(0, count))
        if (count < INPUT.length) return
      } else {
        if (count < 0 && isLater(count)) return
        this.#inputEnded = true
        this.#watch()
        this.#listener.ended()
        return
      }
    }
  }

  #flush(): void {
    const sent = this.#send(this.#unsent)
    this.#unsent = this.#outputEnded ? NOTHING : this.#unsent.subarray(sent)
    if (this.#unsent.length === 0) {
      this.#unsent = NOTHING
      if (this.#isEnding) this.#shut()
    }
    if (this.#isDestroyed) return
    this.#watch()
    this.#listener.room()
  }

  #send(octets: Uint8Array): number {
    const sent = sendFrom(this.#fd, octets, octets.length)
    if (sent >= 0) return sent
    // The peer has closed; its last input may still be unread.
    if (!isLater(sent)) this.#outputEnded = true
    return 0
  }

  #shut(): void {
    if (this.#outputEnded) return
    this.#outputEnded = true
    try {
      endOutput(this.#fd)
    } catch {
      // ENOTCONN: the peer has reset the connection.
    }
  }

  #watch(): void {
    if (this.#isDestroyed) return
    const events = (this.#isPaused || this.#inputEnded ? 0 : READABLE) | (this.#unsent.length > 0 ? WRITABLE : 0)
    if (this.#registration !== undefined) this.#registration.change(events)
    else if (events !== 0) this.#registration = socketLoop().add(this.#fd, events, this.#ready)
  }
}
