import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { type GrantPolicy, policyOf, trustListsOf } from '../../../src/grants/grant-policy.ts'
import { parseSettings, SECTIONS } from '../../../src/settings/settings.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import {
  addressBytes,
  formatNetwork,
  type IpAddress,
  type Network,
  NetworkSet,
  networkContains,
  networkOf,
  readAddress,
} from '../../../src/wire/ip-address.ts'
import { ip, net } from '../../harness/addresses.ts'
import { grantPolicy } from '../../harness/postgres/grant-policy.ts'

const of = (toml: string): GrantPolicy => policyOf(parseSettings(toml, 'x.toml').settings)

describe('peers that forward other clients', () => {
  test.each([
    ['[popup]\nproxy_trust = ["203.0.113.9"]', 'popup.proxy_trust'],
    ['[popup]\nssl_hack_trust = ["127.0.0.0/8", "203.0.113.8/29"]', 'popup.ssl_hack_trust'],
    ['[wrap]\nproxy_trust = ["203.0.113.0/24"]', 'wrap.proxy_trust'],
  ])('%j is never granted, in every form of its address', (toml, setting) => {
    const { neverList } = of(toml)
    for (const form of [
      '203.0.113.9',
      '::ffff:203.0.113.9',
      '64:ff9b::203.0.113.9',
      '::ffff:0:203.0.113.9',
      '::203.0.113.9',
      '2002:cb00:7109::1',
    ]) {
      expect(neverList.refusal(ip(form)), form).toBe('proxy')
      expect(neverList.loginRefusal(ip(form)), form).toBe('proxy')
      expect(neverList.describe(ip(form)), form).toContain(`listed in ${setting}`)
      expect(neverList.networkRefusal(net(form)), form).toBe('proxy')
    }
    expect(neverList.refusal(ip('203.0.112.9'))).toBeUndefined()
    expect(neverList.describe(ip('203.0.112.9'))).toBeUndefined()
  })

  test('loopback among them is treated as loopback', () => {
    expect(of('').neverList.refusal(ip('127.0.0.1'))).toBe('loopback')
    const demo = of('[grants]\ngrant_loopback = true\n[popup]\nproxy_trust = ["127.0.0.0/8"]')
    expect(demo.neverList.refusal(ip('127.0.0.1'))).toBeUndefined()
    expect(demo.neverList.refusal(ip('::1'))).toBeUndefined()
  })

  test('loopback in never_grant is never granted, with grant_loopback too', () => {
    const { neverList } = of('[grants]\ngrant_loopback = true\nnever_grant = ["127.0.0.8/29", "::1"]')
    for (const form of ['127.0.0.9', '::ffff:127.0.0.9', '64:ff9b::127.0.0.9', '::1']) {
      expect(neverList.refusal(ip(form)), form).toBe('never')
      expect(neverList.describe(ip(form)), form).toContain('listed in grants.never_grant')
      expect(neverList.networkRefusal(net(form)), form).toBe('never')
    }
    expect(neverList.networkRefusal(net('127.0.0.8/30'))).toBe('never')
    expect(neverList.refusal(ip('127.0.0.1'))).toBeUndefined()
    expect(neverList.networkRefusal(net('127.0.0.1'))).toBeUndefined()
  })

  test('with grant_loopback the views for mail servers agree with the gate on loopback', () => {
    const networks = (toml: string) =>
      of(toml)
        .neverList.published()
        .map(({ network }) => formatNetwork(network))
    const demo = networks('[grants]\ngrant_loopback = true\nnever_grant = ["127.0.0.9"]')
    expect(demo).toContain('127.0.0.9/32')
    expect(demo).not.toContain('127.0.0.0/8')
    expect(networks('')).toContain('127.0.0.0/8')
  })

  test('the list contains the peers of every setting with trusted peers', () => {
    const named = Object.values(SECTIONS).flatMap(({ name, rows }) =>
      Object.keys(rows)
        .filter(setting => /trust/.test(setting))
        .map(setting => `${name}.${setting}`),
    )
    expect(named.length).toBeGreaterThan(0)
    expect(Object.keys(trustListsOf(parseSettings('', 'x').settings)).sort()).toEqual(named.sort())
  })

  test('a network that contains one can be allowed; a network of them cannot', () => {
    const { neverList } = of('[wrap]\nproxy_trust = ["203.0.113.16/29"]')
    expect(neverList.networkRefusal(net('203.0.113.0/24'))).toBeUndefined()
    expect(neverList.networkRefusal(net('203.0.113.16/30'))).toBe('proxy')
    expect(neverList.exceptionsIn(net('203.0.113.0/24'))).toEqual([net('203.0.113.16/29')])
    expect(neverList.exceptionsIn(net('203.0.112.0/24'))).toEqual([])
  })
})

describe('an address that embeds an IPv4 address', () => {
  test.each([
    ['64:ff9b::127.0.0.1', 'loopback'],
    ['64:ff9b::224.0.0.1', 'never'],
    ['64:ff9b::192.0.2.9', 'never'],
    ['64:ff9b::198.51.100.1', 'own'],
    ['64:ff9b::10.1.2.3', 'private'],
    ['2001:db8:64::10.1.2.3', 'private'],
    ['2001:0:4136:e378:8000:63bf:3fff:fdf6', 'never'],
  ])('%s: %s', (text, reason) => {
    const { neverList } = grantPolicy({
      denyPrivate: true,
      neverGrant: new NetworkSet([net('192.0.2.0/24')]),
      ownAddresses: () => new Set([ip('198.51.100.1')]),
      customers: new CustomerNetworks([net('2001:db8:64::/96')]),
    })
    expect(neverList.loginRefusal(ip(text))).toBe(reason)
  })

  test('has its own row, with ipv6_prefix = 64 too: its grant counts neither for its neighbours nor for the IPv4 address', () => {
    const policy = of('[grants]\nipv6_prefix = 64\nnat64_prefixes = ["2001:db8:64::/96"]')
    for (const text of ['64:ff9b::198.51.100.7', '2001:db8:64::198.51.100.7', '::ffff:0:198.51.100.7']) {
      expect(policy.rowOf(ip(text))).toBe(ip(text))
    }
    expect(policy.rowOf(ip('64:ff9b:0:0:1::1'))).toBe('64:ff9b::1:0:0:1')
    expect(policy.rowOf(ip('2001:db8:1:2:3::4'))).toBe('2001:db8:1:2::/64')
    expect(policy.rowOf(ip('198.51.100.7'))).toBe('198.51.100.7')
  })

  test('is refused if the IPv4 address is refused', () => {
    const anyList = fc.array(fc.uint8Array({ minLength: 4, maxLength: 4 }).map(readAddress), { maxLength: 5 })
    fc.assert(
      fc.property(anyList, fc.nat(4), (listed, n) => {
        const proxies = new NetworkSet(listed.map(base => ({ base, prefixLength: 32 })))
        const { neverList } = grantPolicy({ trusted: { 'popup.proxy_trust': proxies } })
        const client = listed[n] ?? ip('192.0.2.7')
        const embedding = readAddress(
          Uint8Array.from([...addressBytes(ip('64:ff9b::')).subarray(0, 12), ...addressBytes(client)]),
        )
        expect(neverList.refusal(embedding)).toBe(neverList.refusal(client))
      }),
    )
  })
})

test('a network without its exceptions contains no refused address', () => {
  const octets = fc.uint8Array({ minLength: 4, maxLength: 4 })
  const anyNetwork = fc
    .tuple(octets, fc.integer({ min: 0, max: 32 }))
    .map(([bytes, length]) => networkOf(readAddress(bytes), length))
  // Inside the network, so that most of the cases check something.
  const inside = (network: Network, bytes: Uint8Array): IpAddress => {
    const fixed = addressBytes(network.base)
    return readAddress(
      bytes.map(
        (octet, n) => (fixed[n] ?? 0) | (octet & (0xff >> Math.max(0, Math.min(8, network.prefixLength - 8 * n)))),
      ),
    )
  }
  fc.assert(
    fc.property(
      anyNetwork,
      fc.array(fc.tuple(octets, fc.integer({ min: 8, max: 32 })), { maxLength: 8 }),
      octets,
      (network, parts, bytes) => {
        const never = parts.map(([part, length]) => networkOf(inside(network, part), length))
        const { neverList } = grantPolicy({ trusted: { 'wrap.proxy_trust': new NetworkSet(never) } })
        fc.pre(neverList.networkRefusal(network) === undefined)
        const addresses = [inside(network, bytes), ...never.map(({ base }) => base)]
        for (const address of addresses) {
          const isException = neverList.exceptionsIn(network).some(part => networkContains(part, address))
          expect(neverList.refusal(address) !== undefined).toBe(isException)
        }
      },
    ),
  )
})
