import { Duplex, type Readable, type Writable } from 'node:stream'
import { standardInput, standardOutput } from '../../ucspi/standard-streams.ts'

/**
 * Descriptors 0 and 1 as one stream. Ending or destroying it leaves descriptor 1 open, because
 * popup's last reply may follow the output of the program that it ran. The end of the process
 * closes the connection.
 */
export class DescriptorStream extends Duplex {
  readonly #input: Readable
  readonly #output: Writable
  #inputEnded = false

  constructor(input: Readable = standardInput(), output: Writable = standardOutput()) {
    super({ allowHalfOpen: true })
    this.#input = input
    this.#output = output
    input.pause()
    input.on('data', (chunk: Buffer) => {
      if (!this.#inputEnded && !this.push(chunk)) input.pause()
    })
    input.on('end', () => this.#endInput())
    input.on('error', error => this.destroy(error))
    output.on('error', error => this.destroy(error))
  }

  override _read(): void {
    this.#input.resume()
  }

  override _write(chunk: Buffer, _encoding: BufferEncoding, done: (error?: Error | null) => void): void {
    this.#output.write(chunk, done)
  }

  /**
   * The other end has closed. The client waits for the close and sends nothing more of importance.
   */
  override _final(done: () => void): void {
    this.#endInput()
    done()
  }

  #endInput(): void {
    if (this.#inputEnded) return
    this.#inputEnded = true
    this.push(null)
  }

  override _destroy(error: Error | null, done: (error: Error | null) => void): void {
    this.#input.destroy()
    done(error)
  }

  /**
   * Writes even after the end of the stream; fulfilled when the octets are written or cannot be
   * written.
   */
  lastWords(text: string, limitMs: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(() => {
        this.#output.destroy()
        resolve()
      }, limitMs)
      this.#output.end(text, 'latin1', () => {
        clearTimeout(timer)
        resolve()
      })
      this.#output.on('close', () => {
        clearTimeout(timer)
        resolve()
      })
    })
  }
}
