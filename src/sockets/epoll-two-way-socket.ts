/** The TwoWaySocket of the engine `epoll`. */
import { BROKEN, HUNG_UP, READABLE, WRITABLE } from '../libc/epoll.ts'
import { endOutput, inheritNoDelay, isLater, receiveInto, sendFrom } from '../libc/sockets.ts'
import { type Registration, socketLoop } from './event-loop.ts'
import type { OwnedDescriptor } from './owned-descriptor.ts'
import type { TwoWayListener, TwoWaySocket } from './two-way-socket.ts'

/** The buffer of all reads of all these sockets. It holds nothing between two reads. */
const INPUT = Buffer.allocUnsafeSlow(65_536)
/** Maximum full buffers per wake-up, so that one socket cannot starve others. */
const AT_A_TIME = 8
const NOTHING: Buffer = Buffer.alloc(0)

/** A TwoWaySocket in the socket loop. Its input is not copied. */
export class EpollTwoWaySocket implements TwoWaySocket {
  readonly #descriptor: OwnedDescriptor
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
   * Takes the descriptor over. Throws SystemCallError; the caller then still owns the descriptor.
   */
  constructor(descriptor: OwnedDescriptor, listener: TwoWayListener) {
    this.#registration = socketLoop().add(descriptor.descriptor, 0, this.#ready)
    this.#descriptor = descriptor
    this.#listener = listener
  }

  /** Throws after the socket is destroyed. */
  get #fd(): number {
    return this.#descriptor.descriptor
  }

  noDelay(): void {
    inheritNoDelay(this.#fd)
  }

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

  write(octets: Uint8Array): void {
    if (this.#isEnding || this.#outputEnded || octets.length === 0) return
    const sent = this.#unsent.length > 0 ? 0 : this.#send(octets)
    if (sent === octets.length || this.#outputEnded) return
    this.#unsent = Buffer.concat([this.#unsent, octets.subarray(sent)])
    this.#watch()
  }

  endOutput(): void {
    if (this.#isEnding || this.#isDestroyed) return
    this.#isEnding = true
    if (this.#unsent.length === 0) this.#shut()
  }

  destroy(): void {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    this.#outputEnded = true
    this.#unsent = NOTHING
    this.#registration?.remove()
    this.#descriptor.close()
  }

  readonly #ready = (events: number): void => {
    const isHungUp = (events & (BROKEN | HUNG_UP)) !== 0
    if (this.#unsent.length > 0 && (isHungUp || (events & WRITABLE) !== 0)) this.#flush()
    if (this.#isDestroyed) return
    if (!this.#isPaused && !this.#inputEnded) this.#read()
    else if (isHungUp) {
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
