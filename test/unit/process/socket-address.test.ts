import fc from 'fast-check'
import { expect, test } from 'vitest'
import { formatSocketAddress, parseSocketAddress, type SocketAddress } from '../../../src/process/socket-address.ts'
import { anyIpAddress } from '../wire/arbitraries.ts'

test.each<[string, SocketAddress]>([
  ['192.0.2.1:110', { kind: 'tcp', host: '192.0.2.1', port: 110 }],
  ['[2001:db8::1]:110', { kind: 'tcp', host: '2001:db8::1', port: 110 }],
  ['*:110', { kind: 'tcp', host: '::', port: 110 }],
  [':110', { kind: 'tcp', host: '::', port: 110 }],
  ['110', { kind: 'tcp', host: '::', port: 110 }],
  ['localhost:0', { kind: 'tcp', host: 'localhost', port: 0 }],
  ['mx-1.example.org:65535', { kind: 'tcp', host: 'mx-1.example.org', port: 65535 }],
  ['unix:/run/auth relay/x:1.sock', { kind: 'unix', path: '/run/auth relay/x:1.sock' }],
  ['fd:3', { kind: 'descriptor', fd: 3 }],
])('%s', (text, address) => {
  expect(parseSocketAddress(text)).toEqual(address)
})

test.each([
  '',
  ':',
  'localhost',
  'localhost:',
  'localhost:pop3',
  'localhost:65536',
  'localhost:-1',
  'localhost:110 ',
  ' 110',
  '2001:db8::1:110',
  '[2001:db8::1]',
  '[localhost]:110',
  '[192.0.2.1]:110',
  '192.0.2.256:110',
  '192.0.2:110',
  '-x:110',
  'a_b:110',
  'unix:relative',
  'unix:',
  'fd:',
  'fd:-1',
  'fd:x',
])('%j is not an address to listen on', text => {
  expect(parseSocketAddress(text)).toBeUndefined()
})

test('format and parse are inverse', () => {
  const anyAddress: fc.Arbitrary<SocketAddress> = fc.oneof(
    fc.record({ kind: fc.constant('tcp' as const), host: anyIpAddress, port: fc.nat(65535) }),
    fc.record({ kind: fc.constant('unix' as const), path: fc.string().map(text => `/${text}`) }),
    fc.record({ kind: fc.constant('descriptor' as const), fd: fc.nat(9999) }),
  )
  fc.assert(
    fc.property(anyAddress, address => {
      expect(parseSocketAddress(formatSocketAddress(address))).toEqual(address)
    }),
  )
})

test('no text makes it throw', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      expect(() => parseSocketAddress(text)).not.toThrow()
    }),
  )
})
