/**
 * The reader of PROXY headers, for a connection of this process and for a socket that another
 * process will get. Both have the same rules: the time limit, and the reason why a header is
 * refused. They differ in the octets behind the header.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { receive } from '../libc/sockets.ts'
import { type ProxyHeader, type ProxyParse, parseProxyHeader } from '../wire/preamble.ts'
import type { Connection } from './connection.ts'

/** Time limit for the whole header, in milliseconds. */
const LIMIT_MS = 3_000
/** First and longest pause between two reads of a socket without an event loop. */
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [1, 50]

/**
 * The header and `rest`, the client's octets that were read behind it. Or `reason`, for the log, if
 * no valid header came in time. `octets`: number of octets that came. `isLate`: the time ended, for
 * example with a client that waits for a greeting.
 */
export type ReadHeader =
  | { readonly header: ProxyHeader; readonly rest: Buffer }
  | { readonly reason: string; readonly octets: number; readonly isLate: boolean }

/**
 * Reads the PROXY header (version 1 or 2) at the beginning of a connection, with the octets that
 * came behind it. Afterwards the connection is paused and has no listener. Never rejects.
 */
export function readProxyHeaderAndRest(connection: Connection, limitMs = LIMIT_MS): Promise<ReadHeader> {
  return new Promise(resolve => {
    const incoming = new IncomingHeader(limitMs)
    const settle = (answer: ReadHeader): void => {
      clearTimeout(timer)
      connection.listen(undefined)
      connection.pause()
      resolve(answer)
    }
    const ended = (): void => settle(incoming.ended())
    const timer = setTimeout(() => settle(incoming.late()), limitMs)
    connection.listen({
      data: octets => {
        const answer = incoming.push(octets)
        if (answer !== undefined) settle(answer)
      },
      end: ended,
      drained: () => {},
      closed: ended,
    })
    connection.resume()
  })
}

/**
 * Reads the PROXY header (version 1 or 2) from a socket that another process will get, and no octet
 * behind it, so that `rest` is empty. The function polls, because the event loop would read all
 * octets of a socket that it watches. Throws SystemCallError.
 */
export async function readProxyHeaderExactly(descriptor: number, limitMs = LIMIT_MS): Promise<ReadHeader> {
  const incoming = new IncomingHeader(limitMs)
  const end = performance.now() + limitMs
  for (let wait = FIRST_PAUSE_MS; ; ) {
    const octets = receive(descriptor, incoming.missing)
    if (octets !== undefined) {
      const answer = octets.length === 0 ? incoming.ended() : incoming.push(octets)
      if (answer !== undefined) return answer
      continue
    }
    if (performance.now() > end) return incoming.late()
    await pause(wait)
    wait = Math.min(wait * 2, LONGEST_PAUSE_MS)
  }
}

/** A header whose octets arrive in pieces. */
class IncomingHeader {
  readonly #limitMs: number
  #octets: Buffer = Buffer.alloc(0)
  #parsed: ProxyParse = parseProxyHeader(this.#octets)

  constructor(limitMs: number) {
    this.#limitMs = limitMs
  }

  /** Number of octets that the header has at least and that have not arrived. */
  get missing(): number {
    return this.#parsed.kind === 'more' ? this.#parsed.atLeast : 0
  }

  /** Adds octets; undefined if more are needed. */
  push(octets: Buffer): ReadHeader | undefined {
    this.#octets = this.#octets.length === 0 ? octets : Buffer.concat([this.#octets, octets])
    const parsed = parseProxyHeader(this.#octets)
    this.#parsed = parsed
    if (parsed.kind === 'more') return undefined
    if (parsed.kind === 'malformed') return this.#refused(parsed.reason)
    return { header: parsed.header, rest: this.#octets.subarray(parsed.length) }
  }

  ended(): ReadHeader {
    return this.#refused('the connection ended within the header')
  }

  late(): ReadHeader {
    return this.#refused(`no PROXY header within ${this.#limitMs} ms`, true)
  }

  #refused(reason: string, isLate = false): ReadHeader {
    return { reason, octets: this.#octets.length, isLate }
  }
}
