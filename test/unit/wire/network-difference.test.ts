import fc from 'fast-check'
import { expect, test } from 'vitest'
import {
  addressBytes,
  formatNetwork,
  type IpAddress,
  NetworkDifference,
  networkContains,
  networkOf,
  readAddress,
} from '../../../src/wire/ip-address.ts'
import { net } from '../../harness/addresses.ts'

const difference = (network: string, ...taken: string[]): string[] =>
  new NetworkDifference(taken.map(net)).of(net(network)).map(formatNetwork)

test.each<[string, string[], string[]]>([
  ['203.0.113.0/24', [], ['203.0.113.0/24']],
  ['203.0.113.0/24', ['198.51.100.0/24', '2001:db8::/32'], ['203.0.113.0/24']],
  ['203.0.113.0/24', ['::/0'], ['203.0.113.0/24']],
  ['2001:db8::/32', ['0.0.0.0/0'], ['2001:db8::/32']],
  ['203.0.113.0/24', ['203.0.113.0/25'], ['203.0.113.128/25']],
  ['203.0.113.8/30', ['203.0.113.9/32'], ['203.0.113.8/32', '203.0.113.10/31']],
  ['203.0.113.8/30', ['203.0.113.8/31', '203.0.113.9/32', '203.0.113.11/32'], ['203.0.113.10/32']],
  ['203.0.113.0/24', ['203.0.113.0/24'], []],
  ['203.0.113.0/24', ['203.0.112.0/23'], []],
  ['2001:db8::/126', ['2001:db8::2/128'], ['2001:db8::/127', '2001:db8::3/128']],
  ['::fffe:0:0/95', ['::fffe:0:0/97'], ['::fffe:8000:0/97']],
])('%s without %j is %j', (network, taken, parts) => {
  expect(difference(network, ...taken)).toEqual(parts)
})

test('an address is in exactly one part, or in none if it is taken out', () => {
  const family = fc.constantFrom(4, 16)
  const sample = family.chain(width => {
    const octets = fc.uint8Array({ minLength: width, maxLength: width })
    // Above 0x20, so that no IPv6 address is IPv4-mapped.
    const head = octets.map(bytes => bytes.with(0, (bytes[0] ?? 0) | 0x40))
    return fc.record({
      network: fc.tuple(head, fc.integer({ min: 2, max: width * 8 })),
      parts: fc.array(fc.tuple(octets, fc.integer({ min: 1, max: width * 8 })), { maxLength: 6 }),
      probes: fc.array(octets, { minLength: 1, maxLength: 6 }),
    })
  })
  fc.assert(
    fc.property(sample, ({ network: [head, length], parts, probes }) => {
      const network = networkOf(readAddress(head), length)
      const fixed = addressBytes(network.base)
      const inside = (bytes: Uint8Array): IpAddress =>
        readAddress(
          bytes.map((octet, n) => (fixed[n] ?? 0) | (octet & (0xff >> Math.max(0, Math.min(8, length - 8 * n))))),
        )
      const taken = parts.map(([bytes, bits]) => networkOf(inside(bytes), bits))
      const left = new NetworkDifference(taken).of(network)
      for (const address of [...probes.map(inside), ...taken.map(({ base }) => base), network.base]) {
        const isLeft = networkContains(network, address) && !taken.some(each => networkContains(each, address))
        expect(left.filter(part => networkContains(part, address))).toHaveLength(isLeft ? 1 : 0)
      }
    }),
  )
})
