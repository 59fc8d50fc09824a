import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type IpAddress, type Network, NetworkSet, networkContains, networkOf } from '../../../src/wire/ip-address.ts'
import { ip as address, net } from '../../harness/addresses.ts'

const anyAddress: fc.Arbitrary<IpAddress> = fc.oneof(fc.ipV4(), fc.ipV6()).map(address)
const anyNetwork: fc.Arbitrary<Network> = fc
  .tuple(anyAddress, fc.integer({ min: 0, max: 128 }))
  .map(([ip, length]) => networkOf(ip, length))

describe('NetworkSet', () => {
  test('contains the addresses of each of its networks', () => {
    fc.assert(
      fc.property(fc.array(anyNetwork, { maxLength: 4 }), anyAddress, (networks, ip) => {
        expect(new NetworkSet(networks).has(ip)).toBe(networks.some(network => networkContains(network, ip)))
      }),
    )
  })

  test('contains the first address of each network', () => {
    fc.assert(
      fc.property(anyNetwork, network => {
        expect(new NetworkSet([network]).has(network.base)).toBe(true)
      }),
    )
  })

  test('families never match each other, not even the widest networks', () => {
    const all6 = new NetworkSet([networkOf(address('::'), 0)])
    const all4 = new NetworkSet([networkOf(address('0.0.0.0'), 0)])
    expect(all6.has(address('192.0.2.1'))).toBe(false)
    expect(all4.has(address('2001:db8::1'))).toBe(false)
    expect(all6.has(address('2001:db8::1'))).toBe(true)
    expect(all4.has(address('192.0.2.1'))).toBe(true)
  })

  test.each([
    ['192.0.2.7/32', ['192.0.2.7'], ['192.0.2.6', '192.0.2.8', '192.0.2.70']],
    ['192.0.2.6/31', ['192.0.2.6', '192.0.2.7'], ['192.0.2.5', '192.0.2.8']],
    ['255.255.255.255/32', ['255.255.255.255'], ['255.255.255.254', '0.0.0.0']],
  ])('%s ends at the bit of its length', (network, inside, outside) => {
    const set = new NetworkSet([net(network)])
    expect(inside.filter(text => !set.has(address(text)))).toEqual([])
    expect(outside.filter(text => set.has(address(text)))).toEqual([])
  })

  test('an empty set contains nothing', () => {
    expect(new NetworkSet([]).has(address('192.0.2.1'))).toBe(false)
  })
})
