import { CR, LF } from './line-endings.ts'

/** How much of a file TOP sends: the header, the empty line after it, and `bodyLines` lines of the body. */
export class TopLimit {
  #inHeader = true
  #bodyLines: number
  /** The line begun in an earlier chunk is empty so far, or holds nothing but one CR. */
  #line: 'empty' | 'cr' | 'text' = 'empty'
  readonly #crIsEmpty: boolean

  /** `crIsEmpty`: a line of one CR ends the header too; qmail sends the whole of a message with CRLF line ends. */
  constructor(bodyLines: number, crIsEmpty: boolean) {
    this.#bodyLines = bodyLines
    this.#crIsEmpty = crIsEmpty
  }

  /** Octets of this chunk that are sent; less than its length means that nothing after it is. */
  take(chunk: Uint8Array): number {
    let start = 0
    while (start < chunk.length) {
      if (!this.#inHeader && this.#line === 'empty') {
        if (this.#bodyLines === 0) return start
        this.#bodyLines -= 1
        this.#line = 'text'
      }
      const end = chunk.indexOf(LF, start)
      if (this.#inHeader) this.#line = this.#lineAfter(chunk, start, end < 0 ? chunk.length : end)
      if (end < 0) return chunk.length
      if (this.#line === 'empty' || (this.#line === 'cr' && this.#crIsEmpty)) this.#inHeader = false
      this.#line = 'empty'
      start = end + 1
    }
    return chunk.length
  }

  #lineAfter(chunk: Uint8Array, start: number, end: number): 'empty' | 'cr' | 'text' {
    if (start === end) return this.#line
    return this.#line === 'empty' && end - start === 1 && chunk[start] === CR ? 'cr' : 'text'
  }
}
