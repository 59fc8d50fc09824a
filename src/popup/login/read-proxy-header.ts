import type { Duplex } from 'node:stream'
import { PROXY_HEADER_MAX_OCTETS, type ProxyHeader, parseProxyHeader } from '../../wire/proxy-protocol.ts'

/** The whole header must be there within so long (spec/sslwrap.md §4). */
const LIMIT_MS = 3_000

/**
 * Reads the PROXY header with which a connection begins. What the client sent behind it is put back into the stream.
 * Answers why not, for the log, if there is no good header in time.
 */
export function readProxyHeader(socket: Duplex): Promise<ProxyHeader | { readonly reason: string }> {
  return new Promise(resolve => {
    let bytes: Buffer = Buffer.alloc(0)
    const settle = (answer: ProxyHeader | { readonly reason: string }): void => {
      clearTimeout(timer)
      socket.off('data', data).off('end', gone).off('close', gone)
      socket.pause()
      resolve(answer)
    }
    const gone = (): void => settle({ reason: 'the connection ended within the header' })
    const data = (chunk: Buffer): void => {
      bytes = bytes.length === 0 ? chunk : Buffer.concat([bytes, chunk])
      const parsed = parseProxyHeader(bytes)
      if (parsed.state === 'malformed') settle({ reason: parsed.reason })
      else if (parsed.state === 'done') {
        settle(parsed.header)
        if (bytes.length > parsed.length) socket.unshift(bytes.subarray(parsed.length))
      } else if (bytes.length > PROXY_HEADER_MAX_OCTETS) settle({ reason: 'header too long' })
    }
    const timer = setTimeout(() => settle({ reason: `no header within ${LIMIT_MS} ms` }), LIMIT_MS)
    socket.on('data', data).on('end', gone).on('close', gone)
  })
}
