import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { CustomerNetworks, TRANSLATION_PREFIX_LENGTHS } from '../../../src/wire/customer-networks.ts'
import {
  addressBytes,
  familyOf,
  formatNetwork,
  type IpAddress,
  type Network,
  networkContains,
  networkOf,
  parseNetwork,
  readAddress,
} from '../../../src/wire/ip-address.ts'
import { ip, net } from '../../harness/addresses.ts'
import { anyIpAddress } from './arbitraries.ts'

const customers = new CustomerNetworks()
const networkText = (text: string, of = customers): string => formatNetwork(of.networkOf(ip(text)))

describe('the network of one customer', () => {
  test.each([
    ['an IPv4 address', '192.0.2.7', '192.0.2.7/32'],
    ['an IPv4-mapped address', '::ffff:192.0.2.7', '192.0.2.7/32'],
    ['an IPv6 address', '2001:db8:1:2:3:4:5:6', '2001:db8:1:2::/64'],
    ['NAT64 and SIIT (RFC 6052)', '64:ff9b::192.0.2.7', '192.0.2.7/32'],
    ['beside the prefix of RFC 6052, in its /64', '64:ff9b::1:0:0:1', '64:ff9b::1:0:0:1/128'],
    ['a translator of the site (RFC 8215)', '64:ff9b:1::192.0.2.7', '64:ff9b:1::c000:207/128'],
    ['such a translator with a /48', '64:ff9b:1:c000:2:700::', '64:ff9b:1:c000:2:700::/128'],
    ['an IPv4-translated address (RFC 7915)', '::ffff:0:192.0.2.7', '192.0.2.7/32'],
    ['an IPv4-compatible address', '::192.0.2.7', '192.0.2.7/32'],
    // RFC 4380 section 4: server 65.54.227.120, client 192.0.2.45, port 40000.
    ['Teredo', '2001:0:4136:e378:8000:63bf:3fff:fdd2', '192.0.2.45/32'],
    ['6to4', '2002:c000:207:1:2:3:4:5', '192.0.2.7/32'],
    ['ISATAP: the site that has the /64', '2001:db8::5efe:192.0.2.7', '2001:db8::/64'],
    ['loopback', '::1', '::1/128'],
    ['unspecified', '::', '::/128'],
  ])('%s: %s', (_, address, network) => {
    expect(networkText(address)).toBe(network)
  })

  // The examples of RFC 6052 section 2.4.
  test.each([
    ['2001:db8::/32', '2001:db8:c000:221::'],
    ['2001:db8:100::/40', '2001:db8:1c0:2:21::'],
    ['2001:db8:122::/48', '2001:db8:122:c000:2:2100::'],
    ['2001:db8:122:300::/56', '2001:db8:122:3c0:0:221::'],
    ['2001:db8:122:344::/64', '2001:db8:122:344:c0:2:2100::'],
    ['2001:db8:122:344::/96', '2001:db8:122:344::192.0.2.33'],
  ])('behind the site prefix %s', (prefix, address) => {
    const site = new CustomerNetworks([net(prefix)])
    expect(networkText(address, site)).toBe('192.0.2.33/32')
    expect(formatNetwork(site.grantedNetworkOf(ip(address)))).toBe(`${ip(address)}/128`)
    expect(site.keyOf(ip(address))).toBe(site.keyOf(ip('192.0.2.33')))
  })

  // The octets of these two begin like the prefixes of 6to4 and Teredo.
  test.each(['192.0.2.7', '32.2.3.4', '32.1.0.0'])('the IPv4 address %s is one customer, and embeds none', text => {
    expect(customers.embeddedIpv4(ip(text))).toBeUndefined()
    expect(customers.networkOf(ip(text))).toEqual({ base: text, prefixLength: 32 })
    expect(customers.grantedNetworkOf(ip(text))).toEqual({ base: text, prefixLength: 32 })
    expect(customers.keyOf(ip(text))).toBe(text)
  })

  test('an ordinary IPv6 address is granted with its /64, which is the key too', () => {
    expect(formatNetwork(customers.grantedNetworkOf(ip('2001:db8:1:2:3::')))).toBe('2001:db8:1:2::/64')
    expect(customers.keyOf(ip('2001:db8:1:2:3::'))).toBe('2001:db8:1:2::/64')
  })

  test('the networks with embedded addresses, the longest translator first', () => {
    const site = new CustomerNetworks([net('2001:db8::/32')])
    expect(site.embeddings.map(formatNetwork)).toEqual([
      ...['64:ff9b::/96', '::ffff:0:0:0/96', '::/96', '2001:db8::/32', '2002::/16', '2001::/32', '64:ff9b:1::/48'],
    ])
  })

  test('a prefix of the site has precedence over the rule for all sites', () => {
    const site = new CustomerNetworks([net('64:ff9b:1::/48'), net('64:ff9b:1:fffe::/96')])
    expect(networkText('64:ff9b:1:c000:2:2100::', site)).toBe('192.0.2.33/32')
    expect(networkText('64:ff9b:1:fffe::192.0.2.33', site)).toBe('192.0.2.33/32')
  })

  test.each(['2001:db8::/33', '2001:db8::/63', '192.0.2.0/32', '2001:db8::1/128'])('%s is not a translator', prefix => {
    expect(() => new CustomerNetworks([net(prefix)])).toThrow(prefix)
  })
})

/** Makes the IPv6 address of an IPv4 address, as the translator, the tunnel or the site would. */
type Mechanism = {
  readonly sites: readonly Network[]
  readonly embed: (ipv4: Uint8Array, rest: Uint8Array) => IpAddress
}

const translator = (prefix: Network): Mechanism => ({
  sites: [prefix],
  embed: (ipv4, rest) => {
    const length = prefix.prefixLength / 8
    const bytes = Uint8Array.from(addressBytes(prefix.base))
    let at = length
    for (const octet of ipv4) {
      if (at === 8 && length < 9) at += 1
      bytes[at] = octet
      at += 1
    }
    bytes.set(rest.subarray(0, 16 - at), at)
    return readAddress(bytes)
  },
})

const anyPrefix = fc
  .tuple(anyIpAddress, fc.constantFrom(...TRANSLATION_PREFIX_LENGTHS))
  .filter(([address]) => familyOf(address) === 6 && (addressBytes(address)[0] ?? 0) >= 0x30)
  .map(([address, length]) => networkOf(address, length))
  // Bits 64 to 71 are zero in every prefix (RFC 6052 section 2.2).
  .filter(({ base }) => addressBytes(base)[8] === 0)

const after = (head: readonly number[], ipv4: Uint8Array, rest: Uint8Array): IpAddress =>
  readAddress(Uint8Array.from([...head, ...ipv4, ...rest].slice(0, 16)))

const anyMechanism: fc.Arbitrary<Mechanism> = fc.oneof(
  anyPrefix.map(translator),
  fc.constantFrom<Mechanism>(
    { ...translator(net('64:ff9b::/96')), sites: [] },
    { ...translator(net('::ffff:0:0:0/96')), sites: [] },
    { sites: [], embed: (ipv4, rest) => after([0x20, 0x02], ipv4, rest) },
    {
      sites: [],
      embed: (ipv4, rest) =>
        readAddress(
          Uint8Array.from([0x20, 0x01, 0, 0, ...rest.subarray(0, 8), ...[...ipv4].map(octet => octet ^ 0xff)]),
        ),
    },
  ),
)
const octets = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })

describe('properties', () => {
  test('two IPv4 customers share no network, for every kind of embedding and for every grant to one of them', () => {
    fc.assert(
      fc.property(anyMechanism, octets(4), octets(4), octets(12), octets(12), (mechanism, a, b, restA, restB) => {
        const of = new CustomerNetworks(mechanism.sites)
        const [first, second] = [mechanism.embed(a, restA), mechanism.embed(b, restB)]
        const isOne = readAddress(a) === readAddress(b)
        expect(of.keyOf(first) === of.keyOf(second)).toBe(isOne)
        expect(of.embeddedIpv4(first)).toBe(readAddress(a))
        if (!isOne) expect(networkContains(of.grantedNetworkOf(first), second)).toBe(false)
      }),
    )
  })

  test('the network of an ordinary address contains no address with an embedded IPv4 address', () => {
    fc.assert(
      fc.property(
        anyMechanism,
        octets(4),
        octets(12),
        octets(8),
        anyIpAddress,
        (mechanism, ipv4, rest, tail, other) => {
          const of = new CustomerNetworks(mechanism.sites)
          const embedding = mechanism.embed(ipv4, rest)
          // A neighbour in the same /64 is the nearest possible address.
          const neighbour = readAddress(Uint8Array.from([...addressBytes(embedding).subarray(0, 8), ...tail]))
          for (const address of [neighbour, other]) {
            if (address === embedding) continue
            expect(networkContains(of.grantedNetworkOf(address), embedding)).toBe(false)
          }
        },
      ),
    )
  })

  test('is the same for its first address, contains every address without an embedded one, and is canonical', () => {
    fc.assert(
      fc.property(anyIpAddress, address => {
        const network = customers.networkOf(address)
        expect(customers.networkOf(network.base)).toEqual(network)
        expect(networkContains(network, address)).toBe(customers.embeddedIpv4(address) === undefined)
        expect(parseNetwork(formatNetwork(network))).toEqual(network)
        const granted = customers.grantedNetworkOf(address)
        expect(networkContains(granted, address)).toBe(true)
        expect(granted.prefixLength).toBeGreaterThanOrEqual(familyOf(address) === 4 ? 32 : 64)
      }),
    )
  })

  test('addresses of one /64 without an embedded address are one customer', () => {
    fc.assert(
      fc.property(octets(8), octets(8), octets(8), (head, a, b) => {
        fc.pre((head[0] ?? 0) >= 0x30)
        const [first, second] = [a, b].map(tail => readAddress(Uint8Array.from([...head, ...tail])))
        expect(customers.keyOf(first ?? expect.unreachable())).toBe(customers.keyOf(second ?? expect.unreachable()))
      }),
    )
  })
})
