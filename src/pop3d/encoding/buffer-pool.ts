/** Buffers of one length, kept for the next transfer; idle sessions hold none. */
export class BufferPool {
  readonly #length: number
  readonly #kept: Buffer[] = []
  readonly #maxKept: number

  constructor(length: number, maxKept: number) {
    this.#length = length
    this.#maxKept = maxKept
  }

  take(): Buffer {
    return this.#kept.pop() ?? Buffer.allocUnsafeSlow(this.#length)
  }

  give(buffer: Buffer): void {
    if (this.#kept.length < this.#maxKept) this.#kept.push(buffer)
  }
}
