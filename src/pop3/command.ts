/** POP3 command lines: splitting the client's octets into lines, and parsing a line. */

/**
 * One line of input. `text` holds one character per octet (latin1), so no octet is lost or changed.
 */
export type Line =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'tooLong' }
  | { readonly type: 'holdsNul' }

/**
 * Longest command line in octets, with CRLF. RFC 2449 §4 requires at least 255; spec/popup.md §2.
 */
export const COMMAND_LINE_LIMIT = 512

/**
 * Longest SASL response line in octets, with CRLF. RFC 5034 §4 leaves the length to the mechanism;
 * spec/popup.md §2.
 */
export const SASL_LINE_LIMIT = 12_288

const LF = 0x0a
const CR = 0x0d
const EMPTY: Buffer = Buffer.alloc(0)

/**
 * Splits octets into lines. A line ends at LF, and one CR directly before LF is removed
 * (spec/popup.md §2).
 *
 * Push a chunk, and call `next` until it returns undefined before the next push. Between two pushes
 * the reader then holds at most `limit` octets of an unfinished line. `rest` returns the octets
 * behind the last line, for the program that continues the dialogue.
 */
export class LineReader {
  #octets: Buffer = EMPTY
  /** Index in `#octets` of the first octet that was not returned yet. */
  #begin = 0
  #discarding = false

  push(chunk: Uint8Array): void {
    this.#octets = this.#begin === this.#octets.length ? asBuffer(chunk) : Buffer.concat([this.pending, chunk])
    this.#begin = 0
  }

  /**
   * Returns the next whole line, or undefined if more octets are needed. `limit` counts octets with
   * the line end.
   */
  next(limit: number = COMMAND_LINE_LIMIT): Line | undefined {
    const [octets, begin] = [this.#octets, this.#begin]
    const end = octets.indexOf(LF, begin)
    if (end < 0) {
      const size = octets.length - begin
      if (this.#discarding || size >= limit) this.#discarding = true
      if (this.#discarding || size === 0) this.#keep(EMPTY)
      // Copy an unfinished line, because a view of it would keep the memory of its whole chunk.
      else if (octets.buffer.byteLength > 4 * limit) this.#keep(asBuffer(this.pending.slice()))
      return undefined
    }
    this.#begin = end + 1
    if (this.#begin === octets.length) this.#keep(EMPTY)
    if (this.#discarding || end + 1 - begin > limit) {
      this.#discarding = false
      return { type: 'tooLong' }
    }
    const text = octets.toString('latin1', begin, end > begin && octets[end - 1] === CR ? end - 1 : end)
    return text.includes('\0') ? { type: 'holdsNul' } : { type: 'line', text }
  }

  /** The octets that were not returned as a line. The reader keeps them. */
  get pending(): Uint8Array {
    const { buffer, byteOffset } = this.#octets
    return new Uint8Array(buffer, byteOffset + this.#begin, this.#octets.length - this.#begin)
  }

  /** Removes and returns the octets that were not returned as a line. */
  rest(): Uint8Array {
    const rest = this.pending
    this.#keep(EMPTY)
    return rest
  }

  #keep(octets: Buffer): void {
    this.#octets = octets
    this.#begin = 0
  }
}

const asBuffer = (octets: Uint8Array): Buffer =>
  Buffer.isBuffer(octets) ? octets : Buffer.from(octets.buffer, octets.byteOffset, octets.byteLength)

/** One command line: the verb in upper case, and the argument as sent. One character per octet. */
export interface Command {
  readonly verb: string
  readonly argument: string
  /** Text behind the first SPACE: the argument with the spaces before it. */
  readonly afterSpace: string
}

/**
 * Parses a command line (spec/popup.md §2). The verb is the text before the first SPACE, without
 * regard to the case of ASCII letters. Spaces behind the verb are skipped. The argument keeps its
 * inner and trailing spaces. A line that begins with a space has an empty verb.
 */
export function parseCommand(line: string): Command {
  const space = line.indexOf(' ')
  if (space < 0) return { verb: upperCaseAscii(line), argument: '', afterSpace: '' }
  let start = space + 1
  while (line[start] === ' ') start += 1
  return { verb: upperCaseAscii(line.slice(0, space)), argument: line.slice(start), afterSpace: line.slice(space + 1) }
}

/**
 * Converts a to z only. `toUpperCase` also maps other letters to ASCII letters, so two verbs could
 * become one.
 */
export const upperCaseAscii = (text: string): string =>
  // Most clients send upper case, so test before replacing.
  HAS_LOWER_CASE.test(text) ? text.replace(LOWER_CASE, letters => letters.toUpperCase()) : text

const HAS_LOWER_CASE = /[a-z]/
const LOWER_CASE = /[a-z]+/g
