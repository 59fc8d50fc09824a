/**
 * Sockets that no event loop watches: one exchange of lines, and the PROXY header of a connection
 * that another process will get.
 */

import { setTimeout as pause } from 'node:timers/promises'
import { receive, unixExchange } from '../libc/sockets.ts'
import { type ProxyHeader, parseProxyHeader } from '../wire/preamble.ts'

/**
 * Sends a line to a Unix socket and returns the reply line, both without LF. Blocks the process.
 * `limit`: longest reply in octets. Throws an Error that describes the failure.
 */
export function askUnix(path: string, line: string, limit: number, timeoutMs: number): string {
  const answer = unixExchange(path, `${line}\n`, limit, timeoutMs)
  const end = answer.indexOf('\n')
  if (end < 0) throw new Error(`${path} closed without an answer`)
  return answer.slice(0, end)
}

/** First and longest pause between two reads. */
const [FIRST_PAUSE_MS, LONGEST_PAUSE_MS] = [1, 50]

/** The PROXY header is missing, malformed or late. */
export class ProxyHeaderFault extends Error {
  override readonly name = 'ProxyHeaderFault'
}

/**
 * Reads the PROXY header (version 1 or 2) from a socket that another process will get, and no octet
 * behind it. The function polls, because the event loop would read all octets of a socket that it
 * watches. For a connection that stays in this process, use readProxyHeaderAndRest of popup. Throws
 * ProxyHeaderFault.
 */
export async function readProxyHeaderExactly(descriptor: number, deadlineMs: number): Promise<ProxyHeader> {
  const end = performance.now() + deadlineMs
  let header = Buffer.alloc(0)
  for (let wait = FIRST_PAUSE_MS; ; ) {
    const parse = parseProxyHeader(header)
    if (parse.state === 'done') return parse.header
    if (parse.state === 'malformed') throw new ProxyHeaderFault(parse.reason)
    const piece = receive(descriptor, parse.atLeast)
    if (piece?.length === 0) throw new ProxyHeaderFault('the connection ended before its PROXY header')
    if (piece !== undefined) {
      header = Buffer.concat([header, piece])
      continue
    }
    if (performance.now() > end) throw new ProxyHeaderFault('the PROXY header did not come in time')
    await pause(wait)
    wait = Math.min(wait * 2, LONGEST_PAUSE_MS)
  }
}
