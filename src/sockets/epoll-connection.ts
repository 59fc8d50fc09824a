/**
 * A client connection of the engine `epoll`: reads, writes, back-pressure and the close.
 *
 * The socket is watched for input, and for output only while octets are unsent. During a pause it
 * is watched until octets arrive, because most pauses end before. A write joins the batch of the
 * event loop's turn (SendBatch). Before any other operation on the descriptor, the batch is sent,
 * so that the order of the octets is kept. Octets that the kernel does not accept are copied into
 * `#unsent`, and later writes wait behind them.
 *
 * A connection ends in one of four ways, and each happens once:
 *
 * - `destroy` closes the descriptor at once.
 * - `end` sends the unsent octets, ends the output, discards input that has arrived, and closes. A
 *   close with unread input would reset the connection, and the client could lose the last reply.
 * - `toStream` gives the descriptor to a stream of the runtime.
 * - `handOver` closes the descriptor after another process has its own.
 *
 * `#isReleased` marks the last two. Callbacks about the connection then end, except `onceClosed`.
 */

import { Socket } from 'node:net'
import { BROKEN, HUNG_UP, READABLE, WRITABLE } from '../libc/epoll.ts'
import { SendBatch } from '../libc/send-batch.ts'
import { endOutput, isLater, receiveInto, sendFrom, sendMoreFrom } from '../libc/sockets.ts'
import { type ConnectionListener, type HalfClosable, IdleTimer } from './connection.ts'
import { type EventLoop, type Registration, socketLoop } from './event-loop.ts'
import type { OwnedDescriptor } from './owned-descriptor.ts'

/** The buffer of all reads of all sockets. It holds nothing between two reads. */
const INPUT = Buffer.allocUnsafeSlow(65_536)

/** Maximum number of 64 KiB reads drained and discarded before closing. */
const LAST_READS = 16

type Unsent = { octets: Uint8Array; readonly done: ((isSent: boolean) => void) | undefined }

/**
 * A client's TCP socket in the socket loop. It takes less memory and processor time than a stream
 * of the runtime.
 */
export class EpollConnection implements HalfClosable {
  readonly #loop: EventLoop
  readonly #descriptor: OwnedDescriptor
  readonly #registration: Registration
  #listener: ConnectionListener | undefined
  readonly #onceClosed: (() => void)[] = []
  #isPaused = true
  #inputEnded = false
  #isEnding = false
  #outputEnds = false
  #isDestroyed = false
  /** The stream that the connection became. */
  #stream: Socket | undefined
  /** The connection was handed over or became a stream, so it is not closed here. */
  #isReleased = false
  readonly #unsent: Unsent[] = []
  #unsentOctets = 0
  /** Number of the batch that contains the latest write. */
  #batch: number | undefined
  readonly #idle = new IdleTimer()
  #input = INPUT

  /**
   * Takes the descriptor over. It may be blocking, because no call here waits. The socket is
   * watched from now on, so that no later call fails because the kernel has no room for another
   * watch. Throws SystemCallError; the descriptor is then closed.
   */
  constructor(descriptor: OwnedDescriptor, loop = socketLoop()) {
    this.#descriptor = descriptor
    this.#loop = loop
    try {
      this.#registration = loop.add(descriptor.descriptor, READABLE, this.#ready)
    } catch (error) {
      descriptor.close()
      throw error
    }
  }

  /** Throws after the descriptor was closed or handed over. */
  get #fd(): number {
    return this.#descriptor.descriptor
  }

  listen(listener: ConnectionListener | undefined): void {
    this.#listener = listener
    if (this.#isDestroyed && !this.#isReleased && listener !== undefined)
      queueMicrotask(() => this.#reportClosed(listener))
  }

  #reportClosed(listener: ConnectionListener): void {
    if (this.#listener === listener) listener.closed()
  }

  onceClosed(callback: () => void): void {
    if (this.#stream?.closed === true || (this.#isDestroyed && !this.#isReleased)) queueMicrotask(callback)
    else this.#onceClosed.push(callback)
  }

  readAtMost(octets: number): void {
    this.#input = INPUT.subarray(0, octets)
  }

  get isPaused(): boolean {
    return this.#isPaused
  }

  get isDestroyed(): boolean {
    return this.#isDestroyed
  }

  get unsent(): number {
    return this.#unsentOctets
  }

  /** EPOLLIN is switched off only when octets arrive, because most pauses end before that. */
  pause(): void {
    this.#isPaused = true
  }

  resume(): void {
    if (this.#isDestroyed) return
    this.#isPaused = false
    this.#watch()
  }

  write(text: string, octets?: Uint8Array): void {
    if (this.#isDestroyed || this.#isEnding || this.#outputEnds) return
    const size = text.length + (octets?.length ?? 0)
    if (size === 0) return
    this.#idle.refresh()
    this.#sendBatch()
    if (this.#unsent.length === 0 && size <= SendBatch.MOST_OCTETS) {
      this.#batch = this.#loop.send(this.#fd, text, octets, this.#incomplete)
      return
    }
    this.#sendNow(Buffer.from(text, 'latin1'), sendFrom)
    if (octets !== undefined) this.#sendNow(octets, sendFrom)
  }

  /** Sends the octets written in this turn before any other operation. */
  #sendBatch(): void {
    if (this.#batch === this.#loop.batch) this.#loop.sendBatch()
  }

  readonly #incomplete = (result: number, message: Uint8Array): void => {
    const sent = this.#octetsSent(result)
    if (sent === undefined) return
    this.#queue(Buffer.from(message.subarray(sent)), undefined)
    this.#watch()
  }

  #sendNow(octets: Uint8Array, send: typeof sendFrom): void {
    if (octets.length === 0) return
    const sent = this.#unsent.length > 0 ? 0 : this.#octetsSent(send(this.#fd, octets, octets.length))
    if (sent === undefined || sent === octets.length) return
    this.#queue(Buffer.from(octets.subarray(sent)), undefined)
    this.#watch()
  }

  writeChunk(octets: Uint8Array): Promise<boolean> {
    if (this.#isDestroyed || this.#isEnding || this.#outputEnds) return Promise.resolve(false)
    this.#idle.refresh()
    this.#sendBatch()
    return new Promise(resolve => {
      this.#queue(octets, resolve)
      if (this.#unsent.length === 1 && this.#flush()) this.#watch()
    })
  }

  onIdle(milliseconds: number, idle: () => void): void {
    this.#idle.set(milliseconds, () => (this.#isEnding ? this.destroy() : idle()))
  }

  end(lastText = ''): void {
    if (this.#isDestroyed || this.#isEnding) return
    this.#sendBatch()
    this.#isEnding = true
    this.#isPaused = false
    if (this.#unsent.length === 0) this.#discardInput()
    // MSG_MORE: the last reply leaves in the same segment as the FIN.
    if (!this.#outputEnds) this.#sendNow(Buffer.from(lastText, 'latin1'), sendMoreFrom)
    if (this.#unsent.length === 0) this.destroy()
    else this.#watch()
  }

  endOutput(): void {
    if (this.#isDestroyed || this.#isEnding || this.#outputEnds) return
    this.#sendBatch()
    this.#outputEnds = true
    if (this.#unsent.length === 0) this.#shutOutput()
  }

  #shutOutput(): void {
    try {
      endOutput(this.#fd)
    } catch {
      queueMicrotask(() => this.destroy()) // ENOTCONN: the peer has reset the connection
    }
  }

  destroy(): void {
    this.#stream?.destroy()
    if (this.#isDestroyed) return
    this.#sendBatch()
    const listener = this.#listener
    this.#release().close()
    for (const { done } of this.#unsent.splice(0)) done?.(false)
    this.#unsentOctets = 0
    this.#callOnceClosed()
    listener?.closed()
  }

  handOver(give: (descriptor: number) => boolean): boolean {
    if (this.#isDestroyed) return false
    this.#sendBatch()
    if (this.#isDestroyed || this.#unsent.length > 0 || !give(this.#fd)) return false
    this.#isReleased = true
    this.#release().close()
    return true
  }

  toStream(): Socket {
    if (this.#isDestroyed) throw new Error('a closed connection cannot become a stream')
    this.#sendBatch()
    const unsent = this.#unsent.splice(0)
    this.#isReleased = true
    const stream = new Socket({ fd: this.#release().release(), allowHalfOpen: true })
    this.#stream = stream
    stream.pause()
    stream.on('error', () => stream.destroy()).once('close', () => this.#callOnceClosed())
    for (const { octets, done } of unsent) stream.write(octets, error => done?.(error === null || error === undefined))
    return stream
  }

  #callOnceClosed(): void {
    for (const callback of this.#onceClosed.splice(0)) callback()
  }

  /** Ends the use of the descriptor and returns it. Later calls of `#fd` throw. */
  #release(): OwnedDescriptor {
    this.#isDestroyed = true
    this.#idle.clear()
    this.#registration.remove()
    this.#listener = undefined
    return this.#descriptor
  }

  /** Sets the events that the loop watches. */
  #watch(): void {
    const events = (this.#isPaused || this.#inputEnded ? 0 : READABLE) | (this.#unsent.length > 0 ? WRITABLE : 0)
    this.#registration.change(events)
  }

  readonly #ready = (events: number): void => {
    if ((events & ~WRITABLE) !== 0) this.#read(events)
    if ((events & WRITABLE) !== 0 && !this.#isDestroyed) this.#sendMore()
  }

  #read(events: number): void {
    if (this.#isPaused || this.#inputEnded) {
      if ((events & (BROKEN | HUNG_UP)) !== 0) this.destroy()
      else this.#watch()
      return
    }
    const count = receiveInto(this.#fd, this.#input)
    if (count > 0) {
      // While closing, discard input: a peer that keeps sending but never reads must not keep the
      // connection open.
      if (this.#isEnding) return
      this.#idle.refresh()
      const octets = Buffer.allocUnsafe(count)
      INPUT.copy(octets, 0, 0, count)
      this.#listener?.data(octets)
    } else if (count === 0) {
      this.#inputEnded = true
      this.#watch()
      if (!this.#isEnding) this.#listener?.end()
    } else if (!isLater(count)) this.destroy()
  }

  #queue(octets: Uint8Array, done: Unsent['done']): void {
    this.#unsent.push({ octets, done })
    this.#unsentOctets += octets.length
  }

  /**
   * Sends as many unsent octets as the kernel accepts. False if the connection failed or is closed.
   */
  #flush(): boolean {
    for (let first = this.#unsent[0]; first !== undefined; first = this.#unsent[0]) {
      const sent = this.#octetsSent(sendFrom(this.#fd, first.octets, first.octets.length))
      if (sent === undefined) return false
      this.#unsentOctets -= sent
      if (sent < first.octets.length) {
        first.octets = first.octets.subarray(sent)
        break
      }
      this.#unsent.shift()
      first.done?.(true)
      if (this.#isDestroyed) return false
    }
    return true
  }

  /** Sends unsent octets, because the kernel accepts octets again. */
  #sendMore(): void {
    if (!this.#flush()) return
    this.#watch()
    if (this.#unsent.length > 0) return
    if (this.#isEnding) {
      this.#discardInput()
      this.destroy()
    } else if (this.#outputEnds) this.#shutOutput()
    else this.#listener?.drained()
  }

  /**
   * Octets that the kernel accepted; undefined if the connection failed. The owner then gets
   * `closed` in a microtask.
   */
  #octetsSent(result: number): number | undefined {
    if (result >= 0) {
      this.#idle.refresh()
      return result
    }
    if (isLater(result)) return 0
    queueMicrotask(() => this.destroy())
    return undefined
  }

  /**
   * Reads and discards input before the connection is closed. Closing with unread input resets the
   * connection, and the reset can overtake the last reply.
   */
  #discardInput(): void {
    for (let reads = 0; reads < LAST_READS && !this.#inputEnded; reads += 1) {
      if (receiveInto(this.#fd, INPUT) <= 0) return
    }
  }
}
