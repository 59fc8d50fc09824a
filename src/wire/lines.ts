/**
 * Lines of a stream of octets. There are two readers. LineSplitter returns all lines of a chunk
 * together, for streams that contain only lines. LineReader returns one line at a time, for
 * dialogues.
 */

const LF = 0x0a

/** The lines that one chunk of octets completed. */
export type SplitLines = {
  /** Whole lines without their LF, decoded as UTF-8. Octets that are not UTF-8 become U+FFFD. */
  readonly lines: readonly string[]
  /** Number of lines above the limit. Each was dropped whole, up to its LF. */
  readonly overlong: number
  /** For each dropped line, in order, the number of `lines` before it. */
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

  /** Adds octets and returns the lines that they complete. The caller may then change the chunk. */
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

  /** Drops octets after the last LF, because at the end of a stream they may be a cut line. */
  end(): { readonly unfinished: boolean } {
    const unfinished = this.#dropping || this.#heldOctets > 0
    this.#forget()
    return { unfinished }
  }

  /** Number of octets that are held of an unfinished line. */
  get pending(): number {
    return this.#heldOctets
  }

  /** True if the unfinished line is longer than the limit. */
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

/**
 * One line of a client. `text` holds one character per octet (latin1), so no octet is lost or
 * changed.
 */
export type Line =
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'tooLong' }
  | { readonly kind: 'holdsNul' }

const CR = 0x0d
const EMPTY: Buffer = Buffer.alloc(0)

/**
 * Returns lines one at a time, each with its own limit, for dialogues in which a line decides how
 * the next octets are read.
 *
 * Push a chunk, then take lines until there is none, then push again. So the reader holds at most
 * `limit` octets of an unfinished line between two pushes. A longer line is discarded up to its LF.
 * The reader keeps the chunk, so the caller must not change it.
 */
export class LineReader {
  #octets: Buffer = EMPTY
  /** Index in `#octets` of the first octet that was not returned yet. */
  #begin = 0
  #isDiscarding = false

  push(chunk: Uint8Array): void {
    this.#octets = this.#begin === this.#octets.length ? asBuffer(chunk) : Buffer.concat([this.pending, chunk])
    this.#begin = 0
  }

  /**
   * Returns the next line, or undefined if more octets are needed. The line ends at LF, and one CR
   * directly before LF is removed. `limit` counts octets with the line end.
   */
  next(limit: number): Line | undefined {
    const [octets, begin] = [this.#octets, this.#begin]
    const end = this.#cut(limit)
    if (typeof end !== 'number') return end === 'tooLong' ? { kind: 'tooLong' } : undefined
    const lf = end - 1
    const text = octets.toString('latin1', begin, lf > begin && octets[lf - 1] === CR ? lf - 1 : lf)
    return text.includes('\0') ? { kind: 'holdsNul' } : { kind: 'line', text }
  }

  /** Returns the octets of the next line, with its LF. */
  take(limit: number): Buffer | 'tooLong' | undefined {
    const [octets, begin] = [this.#octets, this.#begin]
    const end = this.#cut(limit)
    return typeof end === 'number' ? octets.subarray(begin, end) : end
  }

  /** Returns the next `count` octets, or undefined if there are fewer. */
  takeOctets(count: number): Buffer | undefined {
    const end = this.#begin + count
    if (end > this.#octets.length) return undefined
    const taken = this.#octets.subarray(this.#begin, end)
    this.#begin = end
    if (end === this.#octets.length) this.#keep(EMPTY)
    return taken
  }

  /** True if the unfinished line is longer than its limit. */
  get isDiscarding(): boolean {
    return this.#isDiscarding
  }

  /** The octets that were not returned. The reader keeps them. */
  get pending(): Buffer {
    return this.#octets.subarray(this.#begin)
  }

  /** Removes and returns the octets that were not returned. */
  rest(): Buffer {
    const rest = this.pending
    this.#keep(EMPTY)
    return rest
  }

  /** Moves behind the next line, and returns the index behind its LF. */
  #cut(limit: number): number | 'tooLong' | undefined {
    const [octets, begin] = [this.#octets, this.#begin]
    const end = octets.indexOf(LF, begin) + 1
    if (end === 0) {
      const size = octets.length - begin
      if (size >= limit) this.#isDiscarding = true
      if (this.#isDiscarding || size === 0) this.#keep(EMPTY)
      // Copy an unfinished line, because a view of it would keep the memory of its whole chunk.
      else if (octets.buffer.byteLength > 4 * limit) this.#keep(asBuffer(new Uint8Array(this.pending)))
      return undefined
    }
    this.#begin = end
    if (end === octets.length) this.#keep(EMPTY)
    const isTooLong = this.#isDiscarding || end - begin > limit
    this.#isDiscarding = false
    return isTooLong ? 'tooLong' : end
  }

  #keep(octets: Buffer): void {
    this.#octets = octets
    this.#begin = 0
  }
}

const asBuffer = (octets: Uint8Array): Buffer =>
  Buffer.isBuffer(octets) ? octets : Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength)
