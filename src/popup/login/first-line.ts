import type { Duplex } from 'node:stream'

/** Longest reply line of a POP3 server (RFC 1939 §3), with some patience. */
const MAX_OCTETS = 1024

/** A line with its LF, and what came behind it. */
export type FirstLine = { readonly line: Buffer; readonly rest: Buffer }

/**
 * Reads one line from a stream; undefined if it ends, fails or is too slow first, or the line is
 * too long. Afterwards the
 * stream is paused and has no listener of ours but one that keeps an error from ending the process.
 * `before` are octets read earlier.
 */
export function readFirstLine(
  stream: Duplex,
  limitMs: number,
  before: Buffer = Buffer.alloc(0),
): Promise<FirstLine | undefined> {
  return new Promise(resolve => {
    let bytes = before
    const settle = (answer: FirstLine | undefined): void => {
      clearTimeout(timer)
      stream.off('data', data).off('end', gone).off('close', gone)
      stream.pause()
      resolve(answer)
    }
    const gone = (): void => settle(undefined)
    const look = (): boolean => {
      const end = bytes.indexOf(0x0a)
      if (end < 0 && bytes.length < MAX_OCTETS) return false
      settle(end < 0 ? undefined : { line: bytes.subarray(0, end + 1), rest: bytes.subarray(end + 1) })
      return true
    }
    const data = (chunk: Buffer): void => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
      look()
    }
    const timer = setTimeout(gone, limitMs)
    if (stream.destroyed || stream.readableEnded) return gone()
    if (look()) return
    stream.on('error', () => {}) // `close` follows, and says enough
    stream.on('data', data).on('end', gone).on('close', gone)
    stream.resume()
  })
}

/** True for `+OK` and what begins with it. */
export const isPositive = ({ line }: FirstLine): boolean => line.subarray(0, 3).toString('latin1') === '+OK'
