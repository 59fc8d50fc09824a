import { duplexPair } from 'node:stream'
import { connect } from 'node:tls'

/** The first octets of the runtime's own TLS client, one character per octet. */
export const CLIENT_HELLO = await new Promise<string>(resolve => {
  const [client, server] = duplexPair()
  server.once('data', (chunk: Buffer) => resolve(chunk.toString('latin1')))
  connect({ socket: client, servername: 'mx.example.org', ALPNProtocols: ['pop3', 'smtp'] }).on('error', () => {})
})
