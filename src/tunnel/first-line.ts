/** The first line of a stream, before octets are relayed: greetings, replies, chain lines. */
import type { Duplex } from 'node:stream'
import { LineReader } from '../wire/lines.ts'

/** A line with its LF, and the octets behind it. */
export type FirstLine = { readonly line: Buffer; readonly rest: Buffer }

/**
 * The reason for no line. `late`: the time is over. `long`: the line has too many octets. `ended`:
 * the stream ended or was closed.
 */
export type NoLine =
  | { readonly reason: 'late' | 'long' | 'ended' }
  | { readonly reason: 'failed'; readonly error: Error }

/** Milliseconds until the line is complete, and its longest length in octets with LF. */
export type LineLimits = { readonly milliseconds: number; readonly octets: number }

const NOTHING: Buffer = Buffer.alloc(0)

/**
 * Reads one line. `before` contains octets that were read earlier. Afterwards the stream is paused
 * and has no listener of this function. Never rejects.
 */
export function readFirstLine(
  stream: Duplex,
  { milliseconds, octets }: LineLimits,
  before: Buffer = NOTHING,
): Promise<FirstLine | NoLine> {
  return new Promise(resolve => {
    const lines = new LineReader()
    lines.push(before)
    const settle = (answer: FirstLine | NoLine): void => {
      clearTimeout(timer)
      stream.off('data', data).off('end', ended).off('close', ended).off('error', failed)
      stream.pause()
      resolve(answer)
    }
    const look = (): boolean => {
      const line = lines.take(octets)
      if (line === undefined && !lines.isDiscarding) return false
      if (line === undefined || line === 'tooLong') settle({ reason: 'long' })
      else settle({ line, rest: lines.rest() })
      return true
    }
    const data = (chunk: Buffer): void => {
      lines.push(chunk)
      look()
    }
    const ended = (): void => settle({ reason: 'ended' })
    const failed = (error: Error): void => settle({ reason: 'failed', error })
    const timer = setTimeout(() => settle({ reason: 'late' }), milliseconds)
    if (look()) return
    if (stream.readableEnded || stream.destroyed) return ended()
    stream.on('end', ended).on('close', ended).on('error', failed).on('data', data)
    stream.resume()
  })
}

/** Longest reply line of a POP3 server in octets. RFC 1939 §3 allows 512. */
const MAX_REPLY_OCTETS = 1024

/**
 * Reads a reply of a POP3 server; undefined if none comes in time. Adds an error listener to the
 * stream that stays, so that a later error does not end the process; `close` follows the error.
 */
export async function readReply(stream: Duplex, milliseconds: number, before?: Buffer): Promise<FirstLine | undefined> {
  stream.on('error', () => {})
  // A server that has closed the connection serves no session, even if it has sent a reply.
  if (stream.destroyed || stream.readableEnded) return undefined
  const found = await readFirstLine(stream, { milliseconds, octets: MAX_REPLY_OCTETS }, before)
  return 'line' in found ? found : undefined
}

/** True for a line that begins with `+OK`. */
export const isPositive = ({ line }: Pick<FirstLine, 'line'>): boolean =>
  line.subarray(0, 3).toString('latin1') === '+OK'
