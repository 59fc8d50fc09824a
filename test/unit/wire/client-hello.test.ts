import { duplexPair } from 'node:stream'
import { type ConnectionOptions, connect } from 'node:tls'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { beginsLikeTls, CLIENT_HELLO_MAX_OCTETS, parseClientHello } from '../../../src/wire/client-hello.ts'

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
    const expected = { kind: 'hello', hello: { servername, alpn } }
    expect(parseClientHello(hello)).toEqual(expected)
    for (let cut = 0; cut < hello.length; cut++)
      expect(parseClientHello(hello.subarray(0, cut))).toEqual({ kind: 'more' })
    for (const size of [1, 7, 100]) {
      const records = refragment(hello, size)
      expect(parseClientHello(records)).toEqual(expected)
      // The last octet may belong to the header of a record, or to the message.
      for (let cut = 0; cut < 250; cut += 1)
        expect(parseClientHello(records.subarray(0, cut))).toEqual({ kind: 'more' })
    }
  })

  test('a message that is damaged at any place still has a result', async () => {
    const hello = await helloOf({ servername: 'pop.example.org', ALPNProtocols: ['pop3'] })
    fc.assert(
      fc.property(fc.nat(hello.length - 1), fc.nat(255), (at, byte) => {
        const bent = Buffer.from(hello)
        bent[at] = byte
        expect(['more', 'plain', 'hello']).toContain(parseClientHello(bent).kind)
      }),
      { numRuns: 1000 },
    )
  })
})

/** A vector with its length in front, in one or two octets. */
const vector = (octets: 1 | 2, ...parts: Uint8Array[]): Buffer => {
  const content = Buffer.concat(parts)
  const length = octets === 1 ? Buffer.of(content.length) : Buffer.of(content.length >> 8, content.length & 255)
  return Buffer.concat([length, content])
}
const latin1 = (text: string) => Buffer.from(text, 'latin1')
const extension = (type: number, ...parts: Uint8Array[]) => Buffer.concat([Buffer.of(0, type), vector(2, ...parts)])
const serverName = (...names: Uint8Array[]) => extension(0, vector(2, ...names))
const hostName = (text: string) => Buffer.concat([Buffer.of(0), vector(2, latin1(text))])
const alpn = (...names: string[]) => extension(16, vector(2, ...names.map(name => vector(1, latin1(name)))))

describe('a message that is made by hand', () => {
  /** A whole ClientHello in one record, with these octets after the extensions. */
  const helloWith = (extensions: readonly Uint8Array[], rest: Uint8Array = Buffer.alloc(0)) => {
    const body = Buffer.concat([
      Buffer.from('0303', 'hex'),
      Buffer.alloc(32, 7),
      vector(1, Buffer.alloc(32, 8)),
      vector(2, Buffer.from('13011302', 'hex')),
      vector(1, Buffer.of(0)),
      vector(2, ...extensions),
      rest,
    ])
    const message = Buffer.concat([Buffer.of(1, 0, body.length >> 8, body.length & 255), body])
    return Buffer.concat([Buffer.of(0x16, 3, 1), vector(2, message)])
  }
  const found = (...extensions: Uint8Array[]) => {
    const answer = parseClientHello(helloWith(extensions))
    return answer.kind === 'hello' ? answer.hello : answer
  }
  const nothing = { servername: undefined, alpn: [] }

  test('extensions are read in any order, and unknown ones are skipped', () => {
    const both = { servername: 'a.example', alpn: ['pop3', 'h2'] }
    expect(found(serverName(hostName('A.Example.')), alpn('pop3', 'h2'))).toEqual(both)
    expect(found(extension(99, Buffer.alloc(300)), alpn('pop3', 'h2'), serverName(hostName('a.example')))).toEqual(both)
    expect(found()).toEqual(nothing)
    expect(found(alpn())).toEqual(nothing)
    expect(found(alpn(''))).toEqual({ servername: undefined, alpn: [''] })
  })

  test.each([
    ['a', 'a'],
    ['x_1-2.example', 'x_1-2.example'],
    ['a..', 'a.'],
    ['x'.repeat(254), 'x'.repeat(254)],
    ['x'.repeat(255), undefined],
    ['', undefined],
    ['a b', undefined],
    ['a/b', undefined],
    ['[::1]', undefined],
    ['a\0', undefined],
    ['\xe4.example', undefined],
  ])('the server name %j is %j', (text, servername) => {
    expect(found(serverName(hostName(text)))).toEqual({ servername, alpn: [] })
  })

  test('the first host name counts, after names of another kind', () => {
    const other = Buffer.concat([Buffer.of(1), vector(2, latin1('other'))])
    expect(found(serverName(other, hostName('a'), hostName('b')))).toMatchObject({ servername: 'a' })
    expect(found(serverName(other))).toEqual(nothing)
  })

  test.each([
    ['a list of names beyond its extension', [extension(0, Buffer.of(0, 9), hostName('a')), alpn('pop3')]],
    ['a name beyond its list', [extension(0, vector(2, Buffer.of(0, 0, 9, 0x61))), alpn('pop3')]],
    ['a protocol beyond its list', [serverName(hostName('a')), extension(16, vector(2, Buffer.of(9, 0x61)))]],
    ['an extension beyond the list', [serverName(hostName('a')), Buffer.of(0, 99, 0, 9)]],
    ['half an extension', [serverName(hostName('a')), Buffer.of(0)]],
  ])('with %s has no requests', (_, extensions) => {
    expect(found(...extensions)).toEqual(nothing)
  })

  test('octets after the extensions are ignored, and those after the message too', () => {
    const hello = helloWith([serverName(hostName('a'))], Buffer.of(1, 2, 3))
    const expected = { kind: 'hello', hello: { servername: 'a', alpn: [] } }
    expect(parseClientHello(hello)).toEqual(expected)
    expect(parseClientHello(Buffer.concat([hello, Buffer.from('160301000501', 'hex')]))).toEqual(expected)
  })

  test('a record of another kind among its records ends the search', () => {
    const records = refragment(helloWith([serverName(hostName('a'))]), 50)
    const bent = Buffer.from(records)
    bent[55] = 0x15
    expect(parseClientHello(records)).toMatchObject({ hello: { servername: 'a' } })
    expect(parseClientHello(bent)).toEqual({ kind: 'hello', hello: nothing })
  })

  test('a longer message than the limit is not waited for', () => {
    const claim = (length: number) => Buffer.from([0x16, 3, 1, 0x40, 0, 1, 0, length >> 8, length & 255])
    expect(parseClientHello(claim(CLIENT_HELLO_MAX_OCTETS))).toEqual({ kind: 'more' })
    expect(parseClientHello(claim(CLIENT_HELLO_MAX_OCTETS + 1))).toEqual({ kind: 'hello', hello: nothing })
    const begun = claim(CLIENT_HELLO_MAX_OCTETS)
    const padded = (octets: number) => Buffer.concat([begun, Buffer.alloc(octets - begun.length)])
    expect(parseClientHello(padded(CLIENT_HELLO_MAX_OCTETS))).toEqual({ kind: 'more' })
    expect(parseClientHello(padded(CLIENT_HELLO_MAX_OCTETS + 1))).toEqual({ kind: 'hello', hello: nothing })
  })
})

test('the first two octets decide whether a stream begins like TLS', () => {
  const streams = ['\x16\x03', '\x16\x03\x01', '\x16\x02', '\x15\x03', '\x16', '']
  expect(streams.map(text => beginsLikeTls(Buffer.from(text, 'latin1')))).toEqual([
    ...[true, true, false],
    ...[false, false, false],
  ])
})

test.each(['USER ann\r\n', 'GET / HTTP/1.0\r\n', '\x80\x2e\x01', '\x16\x02\x00', '\x15\x03\x01', '\x17'])(
  'not TLS: %j',
  text => {
    expect(parseClientHello(Buffer.from(text, 'latin1'))).toEqual({ kind: 'plain' })
  },
)

test('TLS without a ClientHello is passed to the library', () => {
  const nothing = { kind: 'hello', hello: { servername: undefined, alpn: [] } }
  expect(parseClientHello(Buffer.from('160301000402000000', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('160301000402000100', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('160301000401010000', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('16030100040100ffff', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('1603010000', 'hex'))).toEqual(nothing)
  expect(parseClientHello(Buffer.from('1603010000' + '1603010000', 'hex'))).toEqual(nothing)
})

test('no octets make it throw or wait without end', () => {
  const tlsLike = fc.uint8Array({ maxLength: 300 }).map(bytes => Buffer.concat([Buffer.of(0x16, 3, 1), bytes]))
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array(), tlsLike), bytes => {
      expect(['more', 'plain', 'hello']).toContain(parseClientHello(bytes).kind)
    }),
    { numRuns: 1000 },
  )
  const endless = Buffer.concat([
    Buffer.from('16030140000100', 'hex'),
    Buffer.of(0x3f, 0xff),
    Buffer.alloc(CLIENT_HELLO_MAX_OCTETS),
  ])
  expect(parseClientHello(endless).kind).toBe('hello')
})
