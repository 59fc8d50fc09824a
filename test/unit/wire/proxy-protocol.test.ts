import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import {
  beginsWithProxyHeader,
  crc32c,
  type Endpoint,
  formatProxyLocal,
  formatProxyV1,
  formatProxyV2,
  PROXY_HEADER_MAX_OCTETS,
  type ProxyFields,
  type ProxyParse,
  parseProxyHeader,
} from '../../../src/wire/preamble.ts'
import { anyIpAddress } from './arbitraries.ts'

const anyEndpoint: fc.Arbitrary<Endpoint> = fc.record({ ip: anyIpAddress, port: fc.integer({ min: 0, max: 65_535 }) })
const anyText = fc.string({ unit: 'grapheme-ascii', maxLength: 128 })
const anyFields: fc.Arbitrary<ProxyFields> = fc.record(
  {
    alpn: anyText,
    authority: anyText,
    uniqueId: anyText,
    tls: fc.record(
      { version: anyText, cipher: anyText, commonName: anyText, verified: fc.boolean() },
      { requiredKeys: ['verified'] },
    ),
  },
  { requiredKeys: [] },
)

const end = (text: string, port: number): Endpoint => {
  const ip = parseIpAddress(text)
  if (ip === undefined) throw new Error(text)
  return { ip, port }
}
const parsed = (bytes: Uint8Array | string, versions?: readonly (1 | 2)[]): ProxyParse =>
  parseProxyHeader(typeof bytes === 'string' ? Buffer.from(bytes, 'latin1') : bytes, versions)

/** Reads like a program that must not read past the header: exactly `atLeast` octets each time. */
function readExactly(stream: Uint8Array): ProxyParse {
  let have = 0
  for (;;) {
    const answer = parseProxyHeader(stream.subarray(0, have))
    if (answer.kind !== 'more') return answer
    expect(answer.atLeast).toBeGreaterThan(0)
    if (have + answer.atLeast > stream.length) return answer
    have += answer.atLeast
    const next = parseProxyHeader(stream.subarray(0, have))
    if (next.kind === 'done') expect(next.length).toBe(have)
  }
}

describe('version 1', () => {
  test('as in the standard', () => {
    const line = 'PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n'
    expect(parsed(`${line}GET /`)).toEqual({
      kind: 'done',
      length: line.length,
      header: {
        kind: 'proxied',
        version: 1,
        source: end('192.168.0.1', 56324),
        destination: end('192.168.0.11', 443),
        fields: {},
      },
    })
    expect(formatProxyV1(end('192.168.0.1', 56324), end('192.168.0.11', 443))).toBe(line)
  })

  test('the longest line of the standard fits', () => {
    const longest = `PROXY TCP6 ${'ffff:'.repeat(7)}ffff ${'ffff:'.repeat(7)}ffff 65535 65535\r\n`
    expect(longest.length).toBeLessThanOrEqual(107)
    expect(parsed(longest).kind).toBe('done')
  })

  test.each(['PROXY UNKNOWN\r\n', 'PROXY UNKNOWN ffff:f...f:ffff any thing 65535 65535\r\n'])('unknown: %j', line => {
    expect(parsed(line)).toEqual({ kind: 'done', header: { kind: 'unknown', version: 1 }, length: line.length })
  })

  test.each([
    'PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n',
    'PROXY TCP4  192.0.2.1 192.0.2.2 1 2\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n',
    'PROXY TCP4 192.0.2.01 192.0.2.2 1 2\r\n',
    'PROXY TCP4 ::1 192.0.2.2 1 2\r\n',
    'PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 1 2 \r\n',
    'PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n',
    'PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n',
    'proxy TCP4 192.0.2.1 192.0.2.2 1 2\r\n',
    'PROXY UNKNOWNX\r\n',
    'PROXY PROXY UNKNOWN\r\n',
    'PROXY PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n',
    'PROXYX',
    `PROXY UNKNOWN ${'x'.repeat(100)}`,
    'USER ann\r\n',
  ])('malformed: %j', line => {
    expect(parsed(line).kind).toBe('malformed')
  })
})

describe('a header that cannot be read has a reason', () => {
  const head = '0d0a0d0a000d0a515549540a'
  const local = `${head}2111000f${'00'.repeat(12)}`

  test.each([
    ['USER ann\r\n', 'no PROXY header'],
    ['PROXYX', 'no PROXY header'],
    [`PROXY UNKNOWN ${'x'.repeat(93)}`, 'PROXY line longer than 107 octets'],
    ['PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n', 'PROXY line ends without CR'],
    ['PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n', 'PROXY line malformed'],
    ['PROXY TCP4 192.0.2.1 192.0.2.2 65536 2\r\n', 'PROXY line holds a bad address or port'],
    ['PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n', 'PROXY line holds a bad address or port'],
  ])('version 1: %j', (line, reason) => {
    expect(parsed(line)).toEqual({ kind: 'malformed', reason })
  })

  test.each([
    ['0d0a0d0a000d0a515549540b', 'no PROXY header'],
    [`${head}1111000c`, 'PROXY header of unknown version or command'],
    [`${head}21111000`, 'PROXY header longer than 4096 octets'],
    [`${head}2112000c${'00'.repeat(12)}`, 'PROXY header of unknown address family'],
    [`${head}2111000b${'00'.repeat(11)}`, 'PROXY header cut short'],
    [`${local}020001`, 'PROXY fields cut short'],
    [`${head}2111000e${'00'.repeat(12)}0200`, 'PROXY fields cut short'],
    [`${local}030000`, 'PROXY checksum wrong'],
    [`${head}21110013${'00'.repeat(12)}03000400000000`, 'PROXY checksum wrong'],
    [`${local}200000`, 'PROXY TLS field malformed'],
  ])('version 2: %s', (hex, reason) => {
    expect(parsed(Buffer.from(hex, 'hex'))).toEqual({ kind: 'malformed', reason })
  })

  test('a checksum of five octets is wrong, even if the first four are right', () => {
    const header = Buffer.from(`${head}21110014${'00'.repeat(12)}0300050000000000`, 'hex')
    header.writeUInt32BE(crc32c(header), 31)
    expect(parsed(header)).toEqual({ kind: 'malformed', reason: 'PROXY checksum wrong' })
  })

  test('a line of 107 octets is read, and a longer one is not waited for', () => {
    const line = `PROXY UNKNOWN ${'x'.repeat(91)}\r\n`
    expect([line.length, parsed(line).kind]).toEqual([107, 'done'])
    expect(parsed(line.slice(0, 106))).toEqual({ kind: 'more', atLeast: 1 })
    expect(parsed('PROXY')).toEqual({ kind: 'more', atLeast: 10 })
  })
})

describe('the beginning of a stream', () => {
  test.each([
    ['PROXY TCP4', true],
    ['PROXY ', true],
    ['PROXY', false],
    ['PROXX ', false],
    ['\r\n\r\n\0\r\nQUIT\n', true],
    ['\r\n\r\n\0\r\nQUIT\n\x21', true],
    ['\r\n\r\n\0\r\nQUIT', false],
    ['', false],
    ['USER ann\r\n', false],
  ])('%j is that of a header: %s', (text, answer) => {
    expect(beginsWithProxyHeader(Buffer.from(text, 'latin1'))).toBe(answer)
  })

  test('the first read requests the octets of the shortest header of an accepted version', () => {
    const atLeast = ([1, 2] as const).map(version => parsed('', [version]))
    expect([parsed(''), ...atLeast]).toEqual([15, 15, 16].map(octets => ({ kind: 'more', atLeast: octets })))
  })
})

describe('the TLS of a proxy', () => {
  const [source, destination] = [end('192.0.2.7', 1), end('192.0.2.1', 2)]
  /** A header whose TLS field has these flags and this result of the check of the certificate. */
  const tlsOf = (flags: number, result: string): unknown => {
    const value = Buffer.from(`${flags.toString(16).padStart(2, '0')}${result}`, 'hex')
    const field = Buffer.concat([Buffer.of(0x20, 0, value.length), value])
    const header = Buffer.concat([formatProxyV2(source, destination).subarray(0, 28), field])
    header.writeUInt16BE(header.length - 16, 14)
    const answer = parsed(header)
    return answer.kind === 'done' && answer.header.kind === 'proxied' ? answer.header.fields.tls : answer
  }

  test.each([
    ['no TLS', 0x00, '00000000', undefined],
    ['a certificate without TLS', 0x06, '00000000', undefined],
    ['TLS without a certificate', 0x01, '00000000', false],
    ['a certificate of the connection that is valid', 0x03, '00000000', true],
    ['a certificate of the session that is valid', 0x05, '00000000', true],
    ['a certificate with an error in the first octet', 0x03, '01000000', false],
    ['a certificate with an error in the last octet', 0x03, '00000001', false],
  ])('%s', (_, flags, result, verified) => {
    expect(tlsOf(flags, result)).toEqual(verified === undefined ? undefined : { verified })
  })
})

describe('version 2', () => {
  const source = end('2001:db8::7', 40_000)
  const destination = end('2001:db8::1', 995)

  test('octet for octet', () => {
    const hex = formatProxyV2(end('192.0.2.7', 0x1234), end('192.0.2.1', 995), { authority: 'ab' }).toString('hex')
    expect(hex.slice(0, -8)).toBe(
      '0d0a0d0a000d0a515549540a' +
        '2111' +
        '0018' +
        'c0000207' +
        'c0000201' +
        '1234' +
        '03e3' +
        '0200026162' +
        '030004',
    )
  })

  test('a flipped bit after the fixed part is found by the checksum, or the header is incomplete', () => {
    const header = formatProxyV2(source, destination, {
      uniqueId: '7f3a.12',
      tls: { version: 'TLSv1.3', verified: false },
    })
    for (let i = 16; i < header.length; i++) {
      const bent = Buffer.from(header)
      bent[i] = (bent[i] ?? 0) ^ 0x40
      const answer = parsed(bent)
      // A changed type of the checksum field makes it an unknown field. The header then has no
      // checksum.
      if (i !== header.length - 7) expect(answer.kind).toBe('malformed')
    }
  })

  test('unknown fields, NOOP and a header without checksum are accepted', () => {
    const plain = Buffer.from(
      '0d0a0d0a000d0a515549540a21110014c0000207c000020112340001' + '04000100' + 'ea000100',
      'hex',
    )
    expect(parsed(plain)).toMatchObject({
      kind: 'done',
      length: plain.length,
      header: { kind: 'proxied', fields: {} },
    })
  })

  test('with LOCAL, unspecified and Unix addresses the real addresses count', () => {
    expect(parsed(formatProxyLocal())).toEqual({ kind: 'done', header: { kind: 'local', version: 2 }, length: 16 })
    const head = '0d0a0d0a000d0a515549540a'
    const unspecified = Buffer.from(`${head}210000020102`, 'hex')
    expect(parsed(unspecified)).toEqual({ kind: 'done', header: { kind: 'unknown', version: 2 }, length: 18 })
    const local = Buffer.from(`${head}20110003010203`, 'hex')
    expect(parsed(local)).toEqual({ kind: 'done', header: { kind: 'local', version: 2 }, length: 19 })
    const unix = Buffer.concat([Buffer.from(`${head}213100d8`, 'hex'), Buffer.alloc(216)])
    expect(parsed(unix)).toMatchObject({ kind: 'done', header: { kind: 'unknown' } })
  })

  test.each([
    ['version 1 in the binary form', '0d0a0d0a000d0a515549540a1111000c'],
    ['unknown command', '0d0a0d0a000d0a515549540a2211000c'],
    ['longer than the bound', '0d0a0d0a000d0a515549540a2111ffff'],
    ['datagram', '0d0a0d0a000d0a515549540a2112000c000000000000000000000000'],
    ['addresses cut', '0d0a0d0a000d0a515549540a2111000b0000000000000000000000'],
    ['field cut', '0d0a0d0a000d0a515549540a2111000f000000000000000000000000020001'],
    ['TLS field cut', '0d0a0d0a000d0a515549540a211100100000000000000000000000002000' + '0101'],
    ['checksum of wrong length', '0d0a0d0a000d0a515549540a211100100000000000000000000000000300' + '0101'],
    ['almost the signature', '0d0a0d0a000d0a515549540b'],
  ])('malformed: %s', (_, hex) => {
    expect(parsed(Buffer.from(hex, 'hex')).kind).toBe('malformed')
  })

  test('a header of 4096 octets is written and read, and a longer one is not written', () => {
    const header = formatProxyV2(source, destination, { authority: 'x'.repeat(4034) })
    expect([header.length, PROXY_HEADER_MAX_OCTETS]).toEqual([4096, 4096])
    expect(parsed(header)).toMatchObject({ kind: 'done', length: 4096 })
    expect(() => formatProxyV2(source, destination, { authority: 'x'.repeat(4035) })).toThrow(
      'PROXY header of 4097 octets',
    )
  })

  test('fields that do not fit throw', () => {
    expect(() => formatProxyV2(source, destination, { authority: 'x'.repeat(PROXY_HEADER_MAX_OCTETS) })).toThrow(
      RangeError,
    )
    expect(() => formatProxyV2(source, destination, { authority: 'x'.repeat(70_000) })).toThrow(RangeError)
  })
})

test('only the listed versions are accepted', () => {
  const [source, destination] = [end('192.0.2.7', 1), end('192.0.2.1', 2)]
  expect(parsed(formatProxyV1(source, destination), [2]).kind).toBe('malformed')
  expect(parsed(formatProxyV2(source, destination), [1]).kind).toBe('malformed')
  expect(parsed('', [2])).toEqual({ kind: 'more', atLeast: 16 })
})

test('CRC-32C check value', () => {
  expect(crc32c(Buffer.from('123456789'))).toBe(0xe3069283)
})

describe('properties', () => {
  test('version 1: parse is the inverse of format, and exact reads never go past the header', () => {
    fc.assert(
      fc.property(anyEndpoint, anyEndpoint, fc.uint8Array(), (source, destination, rest) => {
        const header = Buffer.from(formatProxyV1(source, destination))
        const expected = {
          kind: 'done',
          length: header.length,
          header: { kind: 'proxied', version: 1, source, destination, fields: {} },
        }
        expect(header.length).toBeLessThanOrEqual(107)
        expect(parsed(Buffer.concat([header, rest]))).toEqual(expected)
        expect(readExactly(Buffer.concat([header, rest]))).toEqual(expected)
      }),
    )
  })

  test('version 2: parse is the inverse of format, and exact reads never go past the header', () => {
    fc.assert(
      fc.property(anyEndpoint, anyEndpoint, anyFields, fc.uint8Array(), (source, destination, fields, rest) => {
        const header = formatProxyV2(source, destination, fields)
        const expected = {
          kind: 'done',
          length: header.length,
          header: { kind: 'proxied', version: 2, source, destination, fields },
        }
        expect(parsed(Buffer.concat([header, rest]))).toEqual(expected)
        expect(readExactly(Buffer.concat([header, rest]))).toEqual(expected)
      }),
    )
  })

  test('any pieces: every true beginning of a header needs more octets', () => {
    const anyHeader = fc.oneof(
      fc.tuple(anyEndpoint, anyEndpoint).map(([a, b]) => Buffer.from(formatProxyV1(a, b))),
      fc.tuple(anyEndpoint, anyEndpoint, anyFields).map(([a, b, f]) => formatProxyV2(a, b, f)),
    )
    fc.assert(
      fc.property(anyHeader, header => {
        for (let cut = 0; cut < header.length; cut++) {
          const answer = parsed(header.subarray(0, cut))
          expect(answer.kind).toBe('more')
          if (answer.kind === 'more') expect(cut + answer.atLeast).toBeLessThanOrEqual(header.length)
        }
      }),
    )
  })

  test('no octets make it throw or wait without end', () => {
    const noise = fc.uint8Array({ maxLength: 400 })
    const nearMiss = fc
      .tuple(fc.constantFrom('PROXY ', 'PROXY TCP4 ', 'PROXY TCP6 ::1 '), noise)
      .map(([start, rest]) => Buffer.concat([Buffer.from(start), rest]))
    const nearMissV2 = fc
      .tuple(fc.constantFrom('2111', '2121', '2131', '2100', '20ff'), fc.nat(400), noise)
      .map(([kind, length, rest]) => {
        const size = length.toString(16).padStart(4, '0')
        return Buffer.concat([Buffer.from(`0d0a0d0a000d0a515549540a${kind}${size}`, 'hex'), rest])
      })
    fc.assert(
      fc.property(fc.oneof(noise, nearMiss, nearMissV2), bytes => {
        const answer = parsed(bytes)
        if (answer.kind === 'more') expect(bytes.length + answer.atLeast).toBeLessThanOrEqual(PROXY_HEADER_MAX_OCTETS)
        if (answer.kind === 'done') expect(answer.length).toBeLessThanOrEqual(bytes.length)
      }),
      { numRuns: 2000 },
    )
  })
})
