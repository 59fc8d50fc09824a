/** Command lines of a POP3 client: cut from its octets, and taken apart. */

/**
 * What one line of input turned out to be. `text` holds one character per octet (latin1), so no
 * byte is lost or changed.
 */
export type Line =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'tooLong' }
  | { readonly type: 'holdsNul' }

/** Octets of a command line, CRLF included. RFC 2449 §4 asks for at least 255; spec/popup.md §2. */
export const COMMAND_LINE_LIMIT = 512

/**
 * Octets of a SASL response line, CRLF included. RFC 5034 §4: as long as the mechanism needs;
 * spec/popup.md §2.
 */
export const SASL_LINE_LIMIT = 12_288

const LF = 0x0a
const CR = 0x0d
const EMPTY: Buffer = Buffer.alloc(0)

/**
 * Bytes in, lines out. A line ends at LF; one CR directly before it is dropped (spec/popup.md §2).
 *
 * Push a chunk, then call `next` until it returns undefined, and only then push again: between two
 * pushes at most one unfinished line (`limit` octets) is held, however long the peer makes it. What
 * follows the last line taken can be had back with `rest`, for the program that continues the
 * dialogue.
 */
export class LineReader {
  #octets: Buffer = EMPTY
  /** Where in them begins what has not been returned. */
  #begin = 0
  #discarding = false

  push(chunk: Uint8Array): void {
    this.#octets = this.#begin === this.#octets.length ? asBuffer(chunk) : Buffer.concat([this.pending, chunk])
    this.#begin = 0
  }

  /**
   * The next whole line, or undefined if more input is needed. `limit` counts octets including the
   * line end.
   */
  next(limit: number = COMMAND_LINE_LIMIT): Line | undefined {
    const [octets, begin] = [this.#octets, this.#begin]
    const end = octets.indexOf(LF, begin)
    if (end < 0) {
      const size = octets.length - begin
      if (this.#discarding || size >= limit) this.#discarding = true
      if (this.#discarding || size === 0) this.#keep(EMPTY)
      // An unfinished line must not keep the whole chunk it came in alive.
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

  /** Everything not yet returned as a line; it stays. */
  get pending(): Uint8Array {
    const { buffer, byteOffset } = this.#octets
    return new Uint8Array(buffer, byteOffset + this.#begin, this.#octets.length - this.#begin)
  }

  /** Takes everything not yet returned as a line. */
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

/**
 * One command line: the verb in upper case, and the argument as it came. One character per octet.
 */
export interface Command {
  readonly verb: string
  readonly argument: string
  /** Everything after the one SPACE that ends the verb: the argument with the spaces before it. */
  readonly afterSpace: string
}

/**
 * Verb = everything up to the first SPACE, ASCII case-insensitive; the spaces after it are skipped;
 * the argument is the rest, inner and trailing spaces kept. A line that begins with a space has the
 * empty verb. spec/popup.md §2.
 */
export function parseCommand(line: string): Command {
  const space = line.indexOf(' ')
  if (space < 0) return { verb: upperCaseAscii(line), argument: '', afterSpace: '' }
  let start = space + 1
  while (line[start] === ' ') start += 1
  return { verb: upperCaseAscii(line.slice(0, space)), argument: line.slice(start), afterSpace: line.slice(space + 1) }
}

/**
 * Only a to z: `toUpperCase` would also turn other letters into ASCII ones, so that two verbs
 * became one.
 */
export const upperCaseAscii = (text: string): string =>
  // Most clients shout.
  HAS_LOWER_CASE.test(text) ? text.replace(LOWER_CASE, letters => letters.toUpperCase()) : text

const HAS_LOWER_CASE = /[a-z]/
const LOWER_CASE = /[a-z]+/g
