import { once } from 'node:events'
import { connect, createServer, Socket } from 'node:net'
import { connect as connectTls } from 'node:tls'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { type AcceptedTls, type AcceptTlsOptions, acceptTls } from '../../../src/tunnel/accept-tls.ts'
import { parseCertificate } from '../../../src/tunnel/certificate.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { rotateTicketKeys, TicketKeyRing } from '../../../src/tunnel/ticket-keys.ts'
import { TlsContexts } from '../../../src/tunnel/tls-contexts.ts'

let contexts: TlsContexts
const server = createServer({ pauseOnConnect: true, allowHalfOpen: true })
const sockets: Socket[] = []
beforeAll(async () => {
  const { cert, key } = await makeSelfSigned({ names: ['localhost'], now: Date.now() })
  contexts = new TlsContexts(
    [parseCertificate(cert, key, 'test')],
    { versions: 'modern' },
    new TicketKeyRing(rotateTicketKeys()),
  )
  await once(server.listen(0, '127.0.0.1'), 'listening')
})
afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy()
})
afterAll(() => server.close())

/** A client that has connected, and the result of its handshake. */
async function handshake(
  limits: Pick<AcceptTlsOptions, 'limit' | 'firstOctetLimit'>,
): Promise<{ readonly client: Socket; readonly accepted: Promise<AcceptedTls> }> {
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  const [raw] = await once(server, 'connection')
  if (!(raw instanceof Socket)) throw new TypeError('a socket')
  sockets.push(client, raw)
  client.on('error', () => {})
  return { client, accepted: acceptTls(raw, { contexts, ...limits }) }
}

test('a client that sends nothing is closed earlier than a client with a slow handshake, with a hint', async () => {
  const { accepted } = await handshake({ limit: 60_000, firstOctetLimit: 50 })
  const end = await accepted
  expect(end.kind).toBe('failed')
  expect(end).toMatchObject({ reason: expect.stringMatching(/^no octet within 50 ms: a client without TLS waits/) })
  const begun = await handshake({ limit: 200, firstOctetLimit: 100 })
  begun.client.write(Buffer.from('1603010200010001fc0303', 'hex'))
  expect(await begun.accepted).toEqual({ kind: 'failed', reason: 'no handshake within 200 ms' })
})

test('the limit for the first octet ends at the first octet', async () => {
  const { client, accepted } = await handshake({ limit: 60_000, firstOctetLimit: 2_000 })
  const secure = connectTls({ socket: client, rejectUnauthorized: false })
  const end = await accepted
  if (end.kind !== 'secure') throw new Error(end.kind)
  sockets.push(secure, end.socket)
  end.socket.write('+OK')
  expect(String((await once(secure, 'data'))[0])).toBe('+OK')
})
