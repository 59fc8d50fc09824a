/**
 * A client connection over streams of the runtime, with the same promises as the engine `epoll`.
 */

import { Duplex, type Readable, type Writable } from 'node:stream'
import { type Connection, type ConnectionListener, IdleTimer } from './connection.ts'

/**
 * A Connection over streams of the runtime: TLS, a relayed session, the two descriptors of the
 * UCSPI form.
 */
export class StreamConnection implements Connection {
  readonly #input: Readable
  readonly #output: Writable
  #listener: ConnectionListener | undefined
  readonly #idle = new IdleTimer()
  #isEnding = false
  /** Octets were unsent after a write, so `drained` must be called when they are sent. */
  #isWaiting = false
  /** The stream ended during a pause, so `end` must be called after `resume`. */
  #endIsHeld = false
  /** The connection became a stream with another owner. */
  #isHandedOver = false
  readonly #onceClosed: (() => void)[] = []

  /** Takes the streams over. They may be one stream, and must allow half-open connections. */
  constructor(input: Readable, output: Writable) {
    this.#input = input
    this.#output = output
    input.pause()
    input.on('data', this.#receive).on('end', this.#endInput).on('error', this.#fail)
    // A separate input stream emits 'close' after 'end'; only the output's 'close' ends the
    // connection.
    output.on('error', this.#fail).on('close', this.#close)
  }

  listen(listener: ConnectionListener | undefined): void {
    this.#listener = listener
    // A closed stream emits no second `close`.
    if (this.#output.closed && !this.#isHandedOver && listener !== undefined) {
      queueMicrotask(() => {
        if (this.#listener === listener) listener.closed()
      })
    }
  }

  get isPaused(): boolean {
    return this.#input.isPaused()
  }

  get isDestroyed(): boolean {
    return this.#isHandedOver || this.#output.destroyed
  }

  get unsent(): number {
    return this.#output.writableLength
  }

  pause(): void {
    if (!this.#isHandedOver) this.#input.pause()
  }

  resume(): void {
    if (this.isDestroyed) return
    this.#input.resume()
    if (!this.#endIsHeld) return
    this.#endIsHeld = false
    queueMicrotask(this.#endInput)
  }

  /** The runtime decides how much it reads. */
  readAtMost(): void {}

  onceClosed(callback: () => void): void {
    if (this.#output.closed) queueMicrotask(callback)
    else this.#onceClosed.push(callback)
  }

  write(text: string, octets?: Uint8Array): void {
    if (this.isDestroyed || this.#isEnding) return
    this.#idle.refresh()
    // Corked output takes a longer code path, which a single part does not need.
    const isTwo = text !== '' && octets !== undefined
    if (isTwo) this.#output.cork()
    if (text !== '') this.#output.write(text, 'latin1', this.#sent)
    if (octets !== undefined) this.#output.write(Buffer.from(octets), this.#sent)
    if (isTwo) this.#output.uncork()
    if (this.#output.writableLength > 0) this.#isWaiting = true
  }

  writeChunk(octets: Uint8Array): Promise<boolean> {
    if (this.isDestroyed || this.#isEnding) return Promise.resolve(false)
    return new Promise(resolve => {
      this.#output.write(octets, error => {
        resolve(error === null || error === undefined)
        this.#sent()
      })
      if (this.#output.writableLength > 0) this.#isWaiting = true
    })
  }

  onIdle(milliseconds: number, idle: () => void): void {
    this.#idle.set(milliseconds, () => (this.#isEnding ? this.destroy() : idle()))
  }

  end(lastText = ''): void {
    if (this.isDestroyed || this.#isEnding) return
    this.write(lastText)
    this.#isEnding = true
    // Closing with input unread would reset the connection and could take the last reply with it.
    this.#input.resume()
    this.#output.end(() => this.destroy())
  }

  destroy(): void {
    this.#input.destroy()
    this.#output.destroy()
  }

  toStream(): Duplex {
    if (this.isDestroyed) throw new Error('a closed connection cannot become a stream')
    this.#isHandedOver = true
    this.#listener = undefined
    this.#idle.clear()
    this.#input.pause()
    this.#input.off('data', this.#receive).off('end', this.#endInput)
    return this.#output instanceof Duplex
      ? this.#output
      : Duplex.from({ readable: this.#input, writable: this.#output })
  }

  /** The octets of a stream pass through this process. */
  handOver(): boolean {
    return false
  }

  readonly #receive = (chunk: Buffer): void => {
    // While closing, discard input: a peer that keeps sending but never reads must not keep the
    // connection open.
    if (this.#isEnding) return
    this.#idle.refresh()
    this.#listener?.data(chunk)
  }

  readonly #endInput = (): void => {
    if (this.isDestroyed || this.#isEnding) return
    if (this.#input.isPaused()) this.#endIsHeld = true
    else this.#listener?.end()
  }

  /** The stream's own `drain` event comes only if the stream held more than its high-water mark. */
  readonly #sent = (): void => {
    this.#idle.refresh()
    if (!this.#isWaiting || this.#output.writableLength > 0) return
    this.#isWaiting = false
    if (!this.isDestroyed && !this.#isEnding) this.#listener?.drained()
  }

  /** A reset ends the connection like any other error: `closed` follows. */
  readonly #fail = (): void => this.destroy()

  readonly #close = (): void => {
    this.#idle.clear()
    for (const callback of this.#onceClosed.splice(0)) callback()
    this.#listener?.closed()
  }
}
