const LF = 0x0a

/** The lines that one chunk of octets completed. */
export type SplitLines = {
  /** Whole lines without their LF, decoded as UTF-8; octets that are not UTF-8 become U+FFFD, none is dropped. */
  readonly lines: readonly string[]
  /** How many lines were longer than the limit: each was dropped whole, up to its LF. */
  readonly overlong: number
  /** For each of these, in order, how many of `lines` stood before it. */
  readonly overlongAt: readonly number[]
}

/**
 * Cuts a stream of octets into lines ended by LF. Holds at most one line of `limit` octets. A
 * longer line is dropped unread up to its LF, so that its tail cannot look like a separate line.
 */
export class LineSplitter {
  readonly #limit: number
  #held: Buffer[] = []
  #heldOctets = 0
  #dropping = false

  /** `limit`: longest line in octets, LF not counted. */
  constructor(limit: number) {
    this.#limit = limit
  }

  /** Takes the next octets; returns the lines they complete. The chunk may be reused afterwards. */
  push(chunk: Buffer): SplitLines {
    const lines: string[] = []
    const overlongAt: number[] = []
    let start = 0
    for (let end = chunk.indexOf(LF); end >= 0; end = chunk.indexOf(LF, start)) {
      const tooLong = this.#dropping || this.#heldOctets + end - start > this.#limit
      if (tooLong) overlongAt.push(lines.length)
      else lines.push(this.#join(chunk, start, end))
      this.#forget()
      start = end + 1
    }
    this.#hold(chunk, start)
    return { lines, overlong: overlongAt.length, overlongAt }
  }

  /**
   * The end of the stream: octets after the last LF are not a line (it may have been cut) and are
   * dropped.
   */
  end(): { readonly unfinished: boolean } {
    const unfinished = this.#dropping || this.#heldOctets > 0
    this.#forget()
    return { unfinished }
  }

  /** Octets held of a line that has not ended yet. */
  get pending(): number {
    return this.#heldOctets
  }

  /** True if the line that has not ended yet is longer than the limit already. */
  get isOverlong(): boolean {
    return this.#dropping
  }

  #join(chunk: Buffer, start: number, end: number): string {
    if (this.#heldOctets === 0) return chunk.toString('utf8', start, end)
    return Buffer.concat([...this.#held, chunk.subarray(start, end)]).toString('utf8')
  }

  #hold(chunk: Buffer, start: number): void {
    if (start === chunk.length || this.#dropping) return
    this.#heldOctets += chunk.length - start
    if (this.#heldOctets > this.#limit) {
      this.#held = []
      this.#heldOctets = 0
      this.#dropping = true
      return
    }
    this.#held.push(Buffer.from(chunk.subarray(start)))
  }

  #forget(): void {
    this.#held = []
    this.#heldOctets = 0
    this.#dropping = false
  }
}
