/** What one line of input turned out to be. `text` holds one character per octet (latin1), so no byte is lost or changed. */
export type Line =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'tooLong' }
  | { readonly type: 'holdsNul' }

/** Octets of a command line, CRLF included. RFC 2449 §4 asks for at least 255; spec/popup.md §2. */
export const COMMAND_LINE_LIMIT = 512

/** Octets of a SASL response line, CRLF included. RFC 5034 §4: as long as the mechanism needs; spec/popup.md §2. */
export const SASL_LINE_LIMIT = 12_288

const LF = 0x0a
const CR = 0x0d
const EMPTY = new Uint8Array(0)
const latin1 = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString('latin1')

/**
 * Bytes in, lines out. A line ends at LF; one CR directly before it is dropped (spec/popup.md §2).
 *
 * Push a chunk, then call `next` until it returns undefined, and only then push again: between two pushes at most one
 * unfinished line (`limit` octets) is held, however long the peer makes it. What follows the last line taken can be
 * had back with `rest`, for the program that continues the dialogue.
 */
export class LineReader {
  #pending: Uint8Array = EMPTY
  #discarding = false

  push(chunk: Uint8Array): void {
    if (this.#pending.length === 0) {
      this.#pending = chunk
      return
    }
    const joined = new Uint8Array(this.#pending.length + chunk.length)
    joined.set(this.#pending)
    joined.set(chunk, this.#pending.length)
    this.#pending = joined
  }

  /** The next whole line, or undefined if more input is needed. `limit` counts octets including the line end. */
  next(limit: number = COMMAND_LINE_LIMIT): Line | undefined {
    const pending = this.#pending
    const end = pending.indexOf(LF)
    if (end < 0) {
      if (this.#discarding || pending.length >= limit) {
        this.#discarding = true
        this.#pending = EMPTY
      } else if (pending.length === 0) {
        this.#pending = EMPTY
      } else if (pending.buffer.byteLength > 4 * limit) {
        // An unfinished line must not keep the whole chunk it came in alive.
        this.#pending = pending.slice()
      }
      return undefined
    }
    this.#pending = end + 1 === pending.length ? EMPTY : pending.subarray(end + 1)
    if (this.#discarding || end + 1 > limit) {
      this.#discarding = false
      return { type: 'tooLong' }
    }
    const text = latin1(pending.subarray(0, end > 0 && pending[end - 1] === CR ? end - 1 : end))
    return text.includes('\0') ? { type: 'holdsNul' } : { type: 'line', text }
  }

  /** Everything not yet returned as a line; it stays. */
  get pending(): Uint8Array {
    return this.#pending
  }

  /** Takes everything not yet returned as a line. */
  rest(): Uint8Array {
    const rest = this.#pending
    this.#pending = EMPTY
    return rest
  }
}
