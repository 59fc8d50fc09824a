/** The messages of a syslog connection over TCP. */
import { LineSplitter, type SplitLines } from '../wire/lines.ts'
import { MAX_SYSLOG_LINE } from './syslog-line.ts'

const SPACE = 0x20
const MAX_COUNT_DIGITS = 7

/**
 * The messages that one chunk completed. `isInvalid`: the framing is invalid, so no more follow.
 */
export type Frames = Omit<SplitLines, 'overlongAt'> & { readonly isInvalid: boolean }

/**
 * Splits a connection of syslog over TCP into messages (RFC 6587). The framing is octet counting
 * (`LENGTH SP MESSAGE`) or lines that end with LF; the first octets of the connection decide. Holds
 * at most one message. Longer messages are dropped whole and counted.
 */
export class SyslogFraming {
  #mode: 'unknown' | 'counted' | 'lines' | 'invalid' = 'unknown'
  #held: Buffer = Buffer.alloc(0)
  #skip = 0
  readonly #splitter = new LineSplitter(MAX_SYSLOG_LINE)

  /** Adds octets. The caller may change the chunk when the call returns. */
  push(chunk: Buffer): Frames {
    switch (this.#mode) {
      case 'unknown': {
        const first = Buffer.concat([this.#held, chunk])
        this.#mode = framingOf(first)
        this.#held = this.#mode === 'unknown' ? first : Buffer.alloc(0)
        return this.#mode === 'unknown' ? NOTHING : this.push(first)
      }
      case 'lines':
        return { ...this.#splitter.push(chunk), isInvalid: false }
      case 'counted':
        return this.#counted(chunk)
      case 'invalid':
        return { ...NOTHING, isInvalid: true }
    }
  }

  #counted(chunk: Buffer): Frames {
    const lines: string[] = []
    let overlong = 0
    let rest = this.#held.length === 0 ? chunk : Buffer.concat([this.#held, chunk])
    for (;;) {
      if (this.#skip > 0) {
        const skipped = Math.min(this.#skip, rest.length)
        this.#skip -= skipped
        rest = rest.subarray(skipped)
      }
      const count = countOf(rest)
      if (count === 'incomplete') break
      if (count === 'invalid') {
        this.#mode = 'invalid'
        this.#held = Buffer.alloc(0)
        return { lines, overlong, isInvalid: true }
      }
      if (count.length > MAX_SYSLOG_LINE) {
        overlong++
        this.#skip = count.length
        rest = rest.subarray(count.start)
        continue
      }
      const end = count.start + count.length
      if (rest.length < end) break
      // Some senders count the LF at the end of their template.
      const hasLineEnd = count.length > 0 && rest[end - 1] === 0x0a
      lines.push(rest.toString('utf8', count.start, hasLineEnd ? end - 1 : end))
      rest = rest.subarray(end)
    }
    this.#held = Buffer.from(rest)
    return { lines, overlong, isInvalid: false }
  }
}

const NOTHING: Frames = { lines: [], overlong: 0, isInvalid: false }

/** A message begins with `<` or a stamp, so digits and a space are a count. */
function framingOf(octets: Buffer): 'unknown' | 'counted' | 'lines' {
  const start = octets.toString('latin1', 0, MAX_COUNT_DIGITS + 1)
  if (/^[1-9]\d{0,6} /.test(start)) return 'counted'
  return /^(?:[1-9]\d{0,6})?$/.test(start) ? 'unknown' : 'lines'
}

function countOf(octets: Buffer): { start: number; length: number } | 'incomplete' | 'invalid' {
  const space = octets.subarray(0, MAX_COUNT_DIGITS + 1).indexOf(SPACE)
  const digits = octets.toString('latin1', 0, space < 0 ? Math.min(octets.length, MAX_COUNT_DIGITS + 1) : space)
  if (space < 0) return /^(?:[1-9]\d{0,6})?$/.test(digits) ? 'incomplete' : 'invalid'
  return /^[1-9]\d{0,6}$/.test(digits) ? { start: space + 1, length: Number(digits) } : 'invalid'
}
