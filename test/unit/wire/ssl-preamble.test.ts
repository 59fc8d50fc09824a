import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  formatSslPreamble,
  isPreamblePassword,
  parseSslPreamble,
  SSL_PREAMBLE_MAX_OCTETS,
} from '../../../src/wire/preamble.ts'
import { ip } from '../../harness/addresses.ts'
import { anyIpAddress } from './arbitraries.ts'

const printable = fc.integer({ min: 0x20, max: 0x7e }).map(code => String.fromCharCode(code))
const anyPassword = fc.string({ unit: printable, minLength: 1, maxLength: 200 })

describe('format', () => {
  test('IPv4 has no brackets, IPv6 has brackets', () => {
    expect(formatSslPreamble({ host: ip('192.0.2.7'), pass: 'a b:c' })).toBe('SSL 192.0.2.7:a b:c\r\n')
    expect(formatSslPreamble({ host: ip('2001:db8:0:0::1'), pass: 'x' })).toBe('SSL [2001:db8::1]:x\r\n')
    expect(formatSslPreamble({ host: ip('::ffff:192.0.2.7'), pass: 'x' })).toBe('SSL 192.0.2.7:x\r\n')
  })

  test.each(['', 'a\nb', 'a\rb', 'é', '\0', 'x'.repeat(201)])('a password that cannot be sent throws: %j', pass => {
    expect(isPreamblePassword(pass)).toBe(false)
    expect(() => formatSslPreamble({ host: ip('192.0.2.7'), pass })).toThrow(
      new TypeError('the preamble password must be 1 to 200 printable ASCII bytes'),
    )
  })

  test('a formatted command is parsed back, and fits the bound', () => {
    fc.assert(
      fc.property(anyIpAddress, anyPassword, (host, pass) => {
        const line = formatSslPreamble({ host, pass })
        expect(line.length).toBeLessThanOrEqual(SSL_PREAMBLE_MAX_OCTETS)
        expect(parseSslPreamble(line.slice(0, -2))).toEqual({ host, pass })
      }),
    )
  })
})

describe('parse', () => {
  test.each([
    ['ssl 192.0.2.7:secret', '192.0.2.7', 'secret'],
    ['SSL 192.0.2.7:a:b:c', '192.0.2.7', 'a:b:c'],
    ['SSL 192.0.2.7: ', '192.0.2.7', ' '],
    ['SSL [2001:DB8::1]:s', '2001:db8::1', 's'],
    ['SSL [::ffff:192.0.2.7]:s', '192.0.2.7', 's'],
    ['SSL [::1]:]:[', '::1', ']:['],
  ])('%s', (line, host, pass) => {
    expect(parseSslPreamble(line)).toEqual({ host, pass })
  })

  test.each([
    'SSL',
    'SSL ',
    'SSL  192.0.2.7:x',
    'SSL 192.0.2.7',
    'SSL 192.0.2.7:',
    'SSL 192.0.2.07:x',
    'SSL 192.0.2:x',
    'SSL 2001:db8::1:secret',
    'SSL [192.0.2.7]:x',
    'SSL [2001:db8::1]x',
    'SSL [2001:db8::1',
    'SSL [fe80::1%eth0]:x',
    'SSL host.example:x',
    'SSL :x',
    'SSL 192.0.2.7:\u0001',
    `SSL 192.0.2.7:${'x'.repeat(250)}`,
  ])('malformed: %j', line => {
    expect(parseSslPreamble(line)).toBe('malformed')
  })

  test.each(['', 'USER SSL', 'SSLX 192.0.2.7:x', 'SS', ' SSL 192.0.2.7:x', 'STLS'])('not this command: %j', line => {
    expect(parseSslPreamble(line)).toBeUndefined()
  })

  test('any text has a result, and an accepted one formats back to the same meaning', () => {
    const nearMiss = fc
      .tuple(fc.constantFrom('SSL ', 'ssl [', 'SSL 192.0.2.7:', 'SSL [::1]:'), fc.string())
      .map(p => p.join(''))
    let understood = 0
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), nearMiss), line => {
        const parsed = parseSslPreamble(line)
        const isUnderstood = parsed !== undefined && parsed !== 'malformed'
        if (isUnderstood) understood += 1
        expect(isUnderstood ? parseSslPreamble(formatSslPreamble(parsed).slice(0, -2)) : parsed).toEqual(parsed)
      }),
    )
    expect(understood).toBeGreaterThan(0)
  })
})
