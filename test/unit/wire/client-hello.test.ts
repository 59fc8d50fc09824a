import { duplexPair } from 'node:stream'
import { type ConnectionOptions, connect } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CLIENT_HELLO_MAX_OCTETS, parseClientHello } from '../../../src/wire/client-hello.ts'

/** The first message of a real TLS client. */
function helloOf(options: ConnectionOptions): Promise<Buffer> {
  return new Promise(resolve => {
    const [near, far] = duplexPair()
    const client = connect({ socket: near, ...options })
    client.on('error', () => {})
    far.once('data', (bytes: Buffer) => {
      client.destroy()
      resolve(bytes)
    })
  })
}

/** The same handshake octets in records of another size. */
function refragment(hello: Buffer, size: number): Buffer {
  const body = hello.subarray(5)
  const records: Buffer[] = []
  for (let at = 0; at < body.length; at += size) {
    const part = body.subarray(at, at + size)
    records.push(Buffer.from([0x16, 3, 1, part.length >> 8, part.length & 0xff]), part)
  }
  return Buffer.concat(records)
}

describe('a real client', () => {
  test.each([
    [{ servername: 'Pop.Example.ORG', ALPNProtocols: ['h2', 'pop3'] }, 'pop.example.org', ['h2', 'pop3']],
    [{ servername: 'pop.example.org', maxVersion: 'TLSv1.2' }, 'pop.example.org', []],
    [{ minVersion: 'TLSv1.3', ecdhCurve: 'X25519MLKEM768' }, undefined, []],
  ] as const)('%o', async (options, servername, alpn) => {
    const hello = await helloOf({
      ...options,
      ...('ALPNProtocols' in options ? { ALPNProtocols: [...options.ALPNProtocols] } : {}),
    })
    const expected = { state: 'hello', hello: { servername, alpn } }
    expect(parseClientHello(hello)).toEqual(expected)
    for (let cut = 0; cut < hello.length; cut++)
      expect(parseClientHello(hello.subarray(0, cut))).toEqual({ state: 'more' })
    for (const size of [1, 7, 100]) expect(parseClientHello(refragment(hello, size))).toEqual(expected)
  })

  test('a message that is damaged at any place still has a result', async () => {
    const hello = await helloOf({ servername: 'pop.example.org', ALPNProtocols: ['pop3'] })
    fc.assert(
      fc.property(fc.nat(hello.length - 1), fc.nat(255), (at, byte) => {
        const bent = Buffer.from(hello)
        bent[at] = byte
        expect(['more', 'plain', 'hello']).toContain(parseClientHello(bent).state)
      }),
      { numRuns: 1000 },
    )
  })
})

test.each(['USER ann\r\n', 'GET / HTTP/1.0\r\n', '\x80\x2e\x01', '\x16\x02\x00'])('not TLS: %j', text => {
  expect(parseClientHello(Buffer.from(text, 'latin1'))).toEqual({ state: 'plain' })
})

test('TLS without a ClientHello is passed to the library', () => {
  const nothing = { state: 'hello', hello: { servername: undefined, alpn: [] } }
  expect(parseClientHello(Buffer.from('160301000402000000', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('16030100040100ffff', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('1603010000' + '1603010000', 'hex'))).toEqual(nothing)
})

test('no octets make it throw or wait without end', () => {
  const tlsLike = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.concat([Buffer.of(0x16, 3, 1), bytes]))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), tlsLike), bytes => {
      expect(['more', 'plain', 'hello']).toContain(parseClientHello(bytes).state)
    }),
    { numRuns: 1000 },
  )
  const endless = Buffer.concat([
    Buffer.from('16030140000100', 'hex'),
    Buffer.of(0x3f, 0xff),
    Buffer.alloc(CLIENT_HELLO_MAX_OCTETS),
  ])
  expect(parseClientHello(endless).state).toBe('hello')
})
