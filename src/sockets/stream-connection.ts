import type { Duplex, Readable, Writable } from 'node:stream'
import type { Connection, ConnectionListener } from './connection.ts'
import { IdleTimer } from './idle-timer.ts'

/** A Connection over streams of the runtime: TLS, a relayed session, the two descriptors of the UCSPI form. */
export class StreamConnection<Output extends Writable = Duplex> implements Connection {
  readonly #input: Readable
  readonly #output: Output
  #listener: ConnectionListener | undefined
  readonly #idle = new IdleTimer()
  #isEnding = false
  /** Octets were left when something was written, and the listener is to be told when they have gone. */
  #isWaiting = false

  /** Takes the streams over, which may be one. They must allow half-open connections. */
  constructor(input: Readable, output: Output) {
    this.#input = input
    this.#output = output
    input.pause()
    input.on('data', this.#receive).on('end', this.#endInput).on('error', this.#fail)
    // An input of its own closes after its end, which is none yet.
    output.on('error', this.#fail).on('close', this.#close)
  }

  listen(listener: ConnectionListener | undefined): void {
    this.#listener = listener
    // A stream that has said `close` does not say it again.
    if (this.#output.closed && listener !== undefined) {
      queueMicrotask(() => {
        if (this.#listener === listener) listener.closed()
      })
    }
  }

  get isPaused(): boolean {
    return this.#input.isPaused()
  }

  get isDestroyed(): boolean {
    return this.#output.destroyed
  }

  get unsent(): number {
    return this.#output.writableLength
  }

  pause(): void {
    this.#input.pause()
  }

  resume(): void {
    this.#input.resume()
  }

  write(text: string, octets?: Uint8Array): void {
    if (this.#output.destroyed || this.#isEnding) return
    this.#idle.refresh()
    this.#output.cork()
    if (text !== '') this.#output.write(text, 'latin1', this.#sent)
    if (octets !== undefined) this.#output.write(Buffer.from(octets), this.#sent)
    this.#output.uncork()
    if (this.#output.writableLength > 0) this.#isWaiting = true
  }

  writeChunk(octets: Uint8Array): Promise<boolean> {
    if (this.#output.destroyed || this.#isEnding) return Promise.resolve(false)
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

  end(lastWords = ''): void {
    if (this.#output.destroyed || this.#isEnding) return
    this.write(lastWords)
    this.#isEnding = true
    // Closing with input unread would reset the connection and could take the last reply with it.
    this.#input.resume()
    this.#output.end(() => this.destroy())
  }

  destroy(): void {
    this.#input.destroy()
    this.#output.destroy()
  }

  /** Lets go of the streams as they are, paused, and answers the one to write to. Nothing more is told; an error still destroys them. */
  release(): Output {
    this.#listener = undefined
    this.#idle.clear()
    this.#input.pause()
    this.#input.off('data', this.#receive).off('end', this.#endInput)
    this.#output.off('close', this.#close)
    return this.#output
  }

  readonly #receive = (chunk: Buffer): void => {
    // Who only talks, and does not take our last words, is not waited for.
    if (this.#isEnding) return
    this.#idle.refresh()
    this.#listener?.data(chunk)
  }

  readonly #endInput = (): void => {
    if (!this.#isEnding) this.#listener?.end()
  }

  /** The stream's own `drain` comes only after more than its high-water mark was written. */
  readonly #sent = (): void => {
    this.#idle.refresh()
    if (!this.#isWaiting || this.#output.writableLength > 0) return
    this.#isWaiting = false
    if (!this.#output.destroyed && !this.#isEnding) this.#listener?.drained()
  }

  /** A reset connection ends like any other: `closed` follows. */
  readonly #fail = (): void => this.destroy()

  readonly #close = (): void => {
    this.#idle.clear()
    this.#listener?.closed()
  }
}
