/** Splits a log into the lines that authd would read, and keeps their numbers. */

import { MAX_LOG_FILE_LINE } from '../../../syslog/container-lines.ts'
import { LineSplitter } from '../../../wire/lines.ts'

/** A line of a log with its number, from 1 on; no text if it was longer than authd reads. */
export type NumberedLine = { readonly n: number; readonly text: string | undefined }

const LF = 0x0a

/**
 * The lines of a stream, one at a time and with their numbers; the last one need not end in LF.
 * Holds one line at most.
 */
export class NumberedLines implements AsyncIterable<NumberedLine> {
  readonly #stream: AsyncIterable<unknown>

  constructor(stream: AsyncIterable<unknown>) {
    this.#stream = stream
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<NumberedLine> {
    const splitter = new LineSplitter(MAX_LOG_FILE_LINE)
    let n = 0
    let open = false
    // One LF at a time, so that a line that is too long keeps its number.
    const take = (piece: Buffer): NumberedLine => {
      const { lines } = splitter.push(piece)
      open = false
      n += 1
      return { n, text: lines[0] }
    }
    for await (const chunk of this.#stream) {
      const bytes = Buffer.isBuffer(chunk) ? chunk : Buffer.from(String(chunk))
      let start = 0
      for (let end = bytes.indexOf(LF); end >= 0; end = bytes.indexOf(LF, start)) {
        yield take(bytes.subarray(start, end + 1))
        start = end + 1
      }
      if (start < bytes.length) {
        splitter.push(bytes.subarray(start))
        open = true
      }
    }
    if (open) yield take(Buffer.from([LF]))
  }
}
