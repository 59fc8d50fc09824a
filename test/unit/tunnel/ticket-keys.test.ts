import { once } from 'node:events'
import { duplexPair } from 'node:stream'
import { connect, type SecureVersion, TLSSocket } from 'node:tls'
import { describe, expect, test } from 'vitest'
import { parseCertificate } from '../../../src/tunnel/certificate.ts'
import { makeSelfSigned } from '../../../src/tunnel/self-signed.ts'
import { rotateTicketKeys, TicketKeyRing, type TicketKeys } from '../../../src/tunnel/ticket-keys.ts'
import { TlsContexts } from '../../../src/tunnel/tls-contexts.ts'

test('the newest key comes first, and old ones are dropped', () => {
  const first = rotateTicketKeys()
  const later = rotateTicketKeys(rotateTicketKeys(first))
  expect(later).toHaveLength(3)
  expect(later[2]).toBe(first[0])
  expect(rotateTicketKeys(later)).not.toContain(first[0])
  expect(new Set(later).size).toBe(3)
})

test.each([[[]], [['']], [['00']], [['x'.repeat(96)]]])('bad keys are refused: %j', keys => {
  expect(() => new TicketKeyRing(keys)).toThrow(TypeError)
})

describe('a session', () => {
  const made = makeSelfSigned({ names: ['mx.example.org'], now: Date.now() })
  const certificate = parseCertificate(made.cert, made.key, 'x')

  /**
   * One connection to a server with these keys: whether the session was resumed, and the ticket
   * that the client received.
   */
  async function visit(keys: TicketKeys, maxVersion: SecureVersion, session?: Buffer) {
    const contexts = new TlsContexts([certificate], { versions: 'modern' }, new TicketKeyRing(keys))
    const [near, far] = duplexPair({ allowHalfOpen: true })
    const server = new TLSSocket(far, { isServer: true, secureContext: contexts.select(undefined) })
    const client = connect({
      socket: near,
      rejectUnauthorized: false,
      maxVersion,
      ...(session === undefined ? {} : { session }),
    })
    const tickets: Buffer[] = []
    client.on('session', (ticket: Buffer) => tickets.push(ticket))
    server.write('+OK\r\n')
    await once(client, 'data')
    const resumed = client.isSessionReused()
    // A resumed TLS 1.2 session has no such event.
    const ticket = maxVersion === 'TLSv1.2' ? client.getSession() : tickets.at(-1)
    client.destroy()
    return { resumed, ticket }
  }

  const first = rotateTicketKeys()
  const second = rotateTicketKeys(first)

  test.each(['TLSv1.3', 'TLSv1.2'] as const)(
    '%s: resumed after a rotation, each time with a new ticket; a server with other keys makes a full handshake',
    async version => {
      const before = await visit(first, version)
      expect(before.resumed).toBe(false)
      const after = await visit(second, version, before.ticket)
      expect(after.resumed).toBe(true)
      expect(after.ticket).toBeDefined()
      expect(after.ticket).not.toEqual(before.ticket)
      // The new ticket has the newest key, so the first key is no longer needed.
      expect((await visit(second.slice(0, 1), version, after.ticket)).resumed).toBe(true)
      expect((await visit(second.slice(0, 1), version, before.ticket)).resumed).toBe(false)
      expect((await visit(rotateTicketKeys(), version, after.ticket)).resumed).toBe(false)
    },
  )
})
