import type { Connection } from '../../sockets/connection.ts'
import { type ProxyHeader, parseProxyHeader } from '../../wire/preamble.ts'

/** Time limit for the whole header. */
const LIMIT_MS = 3_000

/**
 * `rest`: the client's octets behind the header. `reason`, for the log: why there is no valid
 * header in time; `octets` came instead. `isLate`: the peer waits, like a client that expects a
 * greeting.
 */
export type ReadHeader =
  | { readonly header: ProxyHeader; readonly rest: Buffer }
  | { readonly reason: string; readonly octets: number; readonly isLate: boolean }

/**
 * Reads the PROXY header with which a connection begins, which is paused then and has no listener.
 */
export function readProxyHeader(connection: Connection): Promise<ReadHeader> {
  return new Promise(resolve => {
    let bytes: Buffer = Buffer.alloc(0)
    const settle = (answer: ReadHeader): void => {
      clearTimeout(timer)
      connection.listen(undefined)
      connection.pause()
      resolve(answer)
    }
    const fail = (reason: string, isLate = false): void => settle({ reason, octets: bytes.length, isLate })
    const gone = (): void => fail('the connection ended within the header')
    const timer = setTimeout(() => fail(`no PROXY header within ${LIMIT_MS} ms`, true), LIMIT_MS)
    connection.listen({
      data: chunk => {
        bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
        const parsed = parseProxyHeader(bytes)
        if (parsed.state === 'malformed') fail(parsed.reason)
        else if (parsed.state === 'done') settle({ header: parsed.header, rest: bytes.subarray(parsed.length) })
      },
      end: gone,
      drained: () => {},
      closed: gone,
    })
    connection.resume()
  })
}
