import { createConnection, type Socket } from 'node:net'
import { formatSocketAddress, type SocketAddress } from '../process/socket-address.ts'
import { connectSharingReads } from '../tunnel/shared-read.ts'

/** The server behind cannot be had. The message is for the log; the client hears a generic sentence. */
export class BackEndUnavailable extends Error {
  override readonly name = 'BackEndUnavailable'
}

/**
 * Connects to the server behind, half-open allowed and without Nagle's delay. The socket is paused
 * and keeps an error listener.
 * @throws BackEndUnavailable after `limit` milliseconds, or when it refuses.
 */
export function connectBackEnd(address: SocketAddress, limit: number): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = open(address)
    const name = formatSocketAddress(address)
    const fail = (why: string, cause?: Error): void => {
      clearTimeout(timer)
      socket.destroy()
      reject(new BackEndUnavailable(`${name}: ${why}`, { cause }))
    }
    const timer = setTimeout(() => fail(`no connection within ${limit} ms`), limit)
    const refused = (error: Error): void => fail('cannot connect', error)
    socket.once('error', refused)
    socket.once('connect', () => {
      clearTimeout(timer)
      socket.off('error', refused)
      // Between the stages of a session nobody else listens; each stage looks at `destroyed` first.
      socket.on('error', () => {})
      resolve(socket)
    })
  })
}

function open(address: SocketAddress): Socket {
  switch (address.type) {
    case 'tcp':
      return connectSharingReads(onread =>
        createConnection({ host: address.host, port: address.port, allowHalfOpen: true, noDelay: true, onread }),
      )
    case 'unix':
      return connectSharingReads(onread => createConnection({ path: address.path, allowHalfOpen: true, onread }))
    case 'descriptor':
      throw new TypeError('a back end is no descriptor')
  }
}
