import { connect, type Socket } from 'node:net'
import { holdListener } from '../../../src/process/listener.ts'
import type { AcceptedSocket, Engine } from '../../../src/sockets/engine.ts'

/**
 * Both ends of a TCP connection: a plain socket of the client, and the socket that an engine
 * accepted. `close` closes the client and the listening socket.
 */
export async function acceptedSocket(
  engine: Engine,
  host = '127.0.0.1',
): Promise<{ client: Socket; socket: AcceptedSocket; port: number; close: () => void }> {
  const held = await holdListener({ kind: 'tcp', host, port: 0 }, 'test')
  if (held.address.kind !== 'tcp') throw new Error('no port')
  const accepted = Promise.withResolvers<AcceptedSocket>()
  const acceptor = engine.accept(held, { blocking: false, noDelay: true }, accepted.resolve)
  const client = connect({ port: held.address.port, host: host === '::' ? '127.0.0.1' : host, allowHalfOpen: true })
  client.on('error', () => {}) // a test that resets the connection looks at the other end
  const close = (): void => {
    acceptor.close()
    client.destroy()
  }
  return { client, socket: await accepted.promise, port: held.address.port, close }
}
