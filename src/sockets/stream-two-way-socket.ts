/** The TwoWaySocket of the engine `node`. */
import { Socket } from 'node:net'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import type { OwnedDescriptor } from './owned-descriptor.ts'
import type { TwoWayListener, TwoWaySocket } from './two-way-socket.ts'

/**
 * A TwoWaySocket over streams of the runtime. Each direction has a separate stream with a separate
 * descriptor of the same socket. With one stream for both directions a failed write would destroy
 * the stream, and the last input of the peer would be lost.
 */
export class StreamTwoWaySocket implements TwoWaySocket {
  readonly #input: Socket
  readonly #output: Socket
  readonly #listener: TwoWayListener
  #isPaused = true
  #inputEnded = false
  /** The input ended during a pause, so `ended` must be called after `resume`. */
  #endIsHeld = false
  #isEnding = false
  /** Octets were unsent after a write, so `room` must be called. */
  #isWaiting = false
  #isDestroyed = false

  /** Takes the descriptor over. Throws (EMFILE); the caller then still owns the descriptor. */
  constructor(descriptor: OwnedDescriptor, listener: TwoWayListener) {
    this.#listener = listener
    this.#output = new Socket({ fd: duplicateDescriptor(descriptor.descriptor), readable: false })
    this.#output.on('error', () => {}).on('close', this.#sent)
    this.#input = new Socket({ fd: descriptor.release(), writable: false, allowHalfOpen: true })
    this.#input.pause()
    this.#input
      .on('data', (octets: Buffer) => this.#receive(octets))
      .on('error', () => {})
      .on('end', this.#endInput)
      // A reset ends the input without the event `end`.
      .on('close', this.#endInput)
  }

  get unsent(): number {
    return this.#output.destroyed ? 0 : this.#output.writableLength
  }

  noDelay(): void {
    this.#output.setNoDelay(true)
  }

  pause(): void {
    this.#isPaused = true
    this.#input.pause()
  }

  resume(): void {
    if (this.#isDestroyed) return
    this.#isPaused = false
    this.#input.resume()
    if (!this.#endIsHeld) return
    this.#endIsHeld = false
    queueMicrotask(this.#endInput)
  }

  write(octets: Uint8Array): void {
    if (this.#isEnding || this.#output.destroyed || octets.length === 0) return
    this.#output.write(Buffer.from(octets), this.#sent)
    if (this.#output.writableLength > 0) this.#isWaiting = true
  }

  endOutput(): void {
    if (this.#isEnding) return
    this.#isEnding = true
    this.#output.end()
  }

  destroy(): void {
    this.#isDestroyed = true
    this.#isEnding = true
    this.#input.destroy()
    this.#output.destroy()
  }

  #receive(octets: Buffer): void {
    if (!this.#isDestroyed) this.#listener.data(octets)
  }

  readonly #endInput = (): void => {
    if (this.#isDestroyed || this.#inputEnded) return
    if (this.#isPaused) {
      this.#endIsHeld = true
      return
    }
    this.#inputEnded = true
    this.#listener.ended()
  }

  /** The stream's own `drain` event comes only if the stream held more than its high-water mark. */
  readonly #sent = (): void => {
    if (!this.#isWaiting || this.#isDestroyed) return
    if (this.unsent === 0) this.#isWaiting = false
    this.#listener.room()
  }
}
