/** The PROXY header at the beginning of a connection that this process reads. */
import type { Connection } from '../../sockets/connection.ts'
import { type ProxyHeader, parseProxyHeader } from '../../wire/preamble.ts'

/** Time limit for the whole header. */
const LIMIT_MS = 3_000

/**
 * The header and `rest`, the client's octets behind it. Or `reason`, for the log, if no valid
 * header came in time. `octets`: number of octets that came. `isLate`: the time ended, for example
 * with a client that waits for a greeting.
 */
export type ReadHeader =
  | { readonly header: ProxyHeader; readonly rest: Buffer }
  | { readonly reason: string; readonly octets: number; readonly isLate: boolean }

/**
 * Reads the PROXY header at the beginning of a connection, with the octets that came behind it.
 * Afterwards the connection is paused and has no listener. Never rejects.
 */
export function readProxyHeaderAndRest(connection: Connection): Promise<ReadHeader> {
  return new Promise(resolve => {
    let bytes: Buffer = Buffer.alloc(0)
    const settle = (answer: ReadHeader): void => {
      clearTimeout(timer)
      connection.listen(undefined)
      connection.pause()
      resolve(answer)
    }
    const fail = (reason: string, isLate = false): void => settle({ reason, octets: bytes.length, isLate })
    const ended = (): void => fail('the connection ended within the header')
    const timer = setTimeout(() => fail(`no PROXY header within ${LIMIT_MS} ms`, true), LIMIT_MS)
    connection.listen({
      data: chunk => {
        bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
        const parsed = parseProxyHeader(bytes)
        if (parsed.state === 'malformed') fail(parsed.reason)
        else if (parsed.state === 'done') settle({ header: parsed.header, rest: bytes.subarray(parsed.length) })
      },
      end: ended,
      drained: () => {},
      closed: ended,
    })
    connection.resume()
  })
}
