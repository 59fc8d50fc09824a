import { describe, expect, test } from 'vitest'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { NetworkSet } from '../../../src/wire/ip-address.ts'
import { ip, net } from '../../harness/addresses.ts'
import { grantPolicy } from '../../harness/postgres/grant-policy.ts'

describe('the policy of a site', () => {
  test.each([{ expTime: 0 }, { expTime: Number.NaN }, { maxLifetime: -1 }, { maxLifetime: Number.NaN }])(
    '%j is not a policy',
    options => {
      expect(() => grantPolicy(options)).toThrow(/^exp_time \S+, max_lifetime \S+$/)
    },
  )

  test('one second is a valid policy, and only prefixes 64 and 128 are valid', () => {
    expect(grantPolicy({ expTime: 1, maxLifetime: 0 }).expTime).toBe(1)
    expect(() => grantPolicy({ ipv6Prefix: 56 })).toThrow('ipv6_prefix must be 64 or 128, not 56')
  })

  test('a repeated login writes nothing within 5 s, or within a hundredth of a short grant', () => {
    expect([86_400, 500, 499, 60, 1].map(expTime => grantPolicy({ expTime }).refreshSeconds)).toEqual([
      5, 5, 4.99, 0.6, 0.01,
    ])
  })

  test('a row is the address, or the /64 of an IPv6 address without an embedded one', () => {
    const rows = (ipv6Prefix: number) =>
      ['192.0.2.7', '2001:db8::7', '64:ff9b::c000:207'].map(text => grantPolicy({ ipv6Prefix }).rowOf(ip(text)))
    expect(rows(128)).toEqual(['192.0.2.7', '2001:db8::7', '64:ff9b::c000:207'])
    expect(rows(64)).toEqual(['192.0.2.7', '2001:db8::/64', '64:ff9b::c000:207'])
  })

  test('the IPv4 address in an address is that of the site’s translators too', () => {
    const policy = grantPolicy({ customers: new CustomerNetworks([net('2001:db8:64::/96')]) })
    expect(policy.embeddedIpv4(ip('2001:db8:64::c000:207'))).toBe('192.0.2.7')
    expect(policy.embeddedIpv4(ip('2001:db8:65::c000:207'))).toBeUndefined()
  })
})

describe('networks', () => {
  const { neverList } = grantPolicy({
    neverGrant: new NetworkSet(['198.51.100.8/29', '2001:db8:f::/48'].map(net)),
    trusted: { 'popup.proxy_trust': new NetworkSet(['203.0.113.9/32', '127.0.0.1/32'].map(net)) },
    ownAddresses: () => new Set([ip('192.0.2.1'), ip('2001:db8::1')]),
  })
  const refusal = (text: string) => neverList.networkRefusal(net(text))

  test('that contain loopback, multicast and the like are too wide; those that contain proxies are not', () => {
    expect(refusal('126.0.0.0/7')).toBe('loopback')
    expect(refusal('::/16')).toBe('loopback')
    expect(refusal('192.0.0.0/3')).toBeUndefined()
    expect(refusal('128.0.0.0/1')).toBe('never')
    expect(refusal('168.0.0.0/7')).toBe('never')
    expect(refusal('fe00::/8')).toBe('never')
    expect(refusal('198.51.100.0/24')).toBeUndefined()
    expect(refusal('203.0.113.0/24')).toBeUndefined()
    expect(refusal('198.51.100.8/30')).toBe('never')
    expect(refusal('203.0.113.9')).toBe('proxy')
    expect(refusal('192.0.2.1')).toBe('own')
    expect(refusal('192.0.2.0/31')).toBeUndefined()
    expect(refusal('127.0.0.1')).toBe('loopback')
  })

  test('name the parts that stay closed, but not themselves', () => {
    const parts = (text: string) =>
      neverList.exceptionsIn(net(text)).map(({ base, prefixLength }) => `${base}/${prefixLength}`)
    expect(parts('198.51.100.0/24')).toEqual(['198.51.100.8/29'])
    expect(parts('198.51.100.8/29')).toEqual([])
    expect(parts('192.0.2.0/24')).toEqual(['192.0.2.1/32'])
    expect(parts('2001:db8::/32')).toEqual(['2001:db8:f::/48', '2001:db8::1/128'])
    expect(parts('8.8.0.0/16')).toEqual([])
  })

  test('are listed in the parts that can have a grant', () => {
    const parts = (text: string) =>
      neverList
        .grantableParts()(net(text))
        .map(({ base, prefixLength }) => `${base}/${prefixLength}`)
    expect(parts('192.0.2.0/30')).toEqual(['192.0.2.0/32', '192.0.2.2/31'])
    expect(parts('203.0.113.9')).toEqual([])
    expect(parts('203.0.113.8')).toEqual(['203.0.113.8/32'])
    expect(parts('64:ff9b::c000:200/120')).toEqual([])
    expect(parts('64:ff9b::c000:207')).toEqual(['64:ff9b::c000:207/128'])
    expect(parts('64:ff9b::cb00:7109')).toEqual([])
  })

  test('are published with the addresses that embed an IPv4 address, which can each have a grant', () => {
    const published = new Map(
      neverList.published().map(({ network, alone }) => [`${network.base}/${network.prefixLength}`, alone]),
    )
    expect(published.get('64:ff9b::/96')).toBe(true)
    expect(published.get('2002::/16')).toBe(true)
    expect(published.get('198.51.100.8/29')).toBe(false)
    expect(published.get('203.0.113.9/32')).toBe(false)
    expect(published.get('192.0.2.1/32')).toBe(false)
    expect(published.get('2001:db8::1/128')).toBe(false)
    expect(published.get('127.0.0.0/8')).toBe(false)
    // Trusted loopback is listed once, as loopback.
    expect(published.has('127.0.0.1/32')).toBe(false)
    expect([...published.keys()].every(text => /^[0-9a-f.:]+\/\d+$/.test(text))).toBe(true)
  })
})

describe('the reason in words', () => {
  const { neverList } = grantPolicy({ denyPrivate: true, ownAddresses: () => new Set([ip('192.0.2.1')]) })

  test.each([
    ['127.0.0.1', 'loopback'],
    ['169.254.0.1', 'link-local, multicast, unspecified or reserved'],
    ['192.0.2.1', 'an address of this host'],
    ['64:ff9b::192.0.2.1', 'an address of this host (for the IPv4 address 192.0.2.1 in it)'],
    ['10.1.2.3', 'private: grants.deny_private is set'],
    ['64:ff9b::10.1.2.3', 'private: grants.deny_private is set'],
    ['192.0.2.9', undefined],
    ['64:ff9b::192.0.2.9', undefined],
  ])('%s: %s', (text, words) => {
    expect(neverList.describe(ip(text))).toBe(words)
  })

  test('a private address is refused for logins only, and only if the site denies it', () => {
    const private4 = ip('10.1.2.3')
    expect(neverList.refusal(private4)).toBeUndefined()
    expect(neverList.loginRefusal(private4)).toBe('private')
    expect(neverList.loginRefusal(ip('64:ff9b::10.1.2.3'))).toBe('private')
    expect(neverList.loginRefusal(ip('64:ff9b::192.0.2.9'))).toBeUndefined()
    expect(grantPolicy().neverList.loginRefusal(private4)).toBeUndefined()
  })
})
