import { isIP } from 'node:net'
import fc from 'fast-check'
import ipaddr from 'ipaddr.js'
import { describe, expect, test } from 'vitest'
import {
  addressBytes,
  familyOf,
  formatNetwork,
  type IpAddress,
  isSingleAddress,
  LOOPBACK,
  NEVER_GRANTED,
  NetworkSet,
  networkContains,
  networkOf,
  networksAround,
  PRIVATE_NETWORKS,
  parseIpAddress,
  parseNetwork,
  parseSocketIp,
  readAddress,
} from '../../../src/wire/ip-address.ts'
import { ip } from '../../harness/addresses.ts'
import { anyIpAddress } from './arbitraries.ts'

/** Every text of an IPv6 address that differs from the canonical one only in zeros and case. */
const spellings = (groups: readonly number[]): string[] => {
  const hex = groups.map(group => group.toString(16))
  const padded = hex.map(group => group.padStart(4, '0'))
  return [hex.join(':'), padded.join(':'), padded.join(':').toUpperCase(), dotted(groups)]
}

const dotted = (groups: readonly number[]): string => {
  const [high = 0, low = 0] = groups.slice(6)
  const head = groups.slice(0, 6).map(group => group.toString(16))
  return `${head.join(':')}:${high >> 8}.${high & 255}.${low >> 8}.${low & 255}`
}

/** Half of the groups are zero, so that runs of zeros have every length and place. */
const anyGroup = fc.oneof(fc.constant(0), fc.integer({ min: 0, max: 0xffff }))

describe('one address, one text', () => {
  test.each([
    ['192.0.2.7', '192.0.2.7'],
    ['0.0.0.0', '0.0.0.0'],
    ['2001:DB8:0:0:0:0:0:1', '2001:db8::1'],
    ['2001:db8:0:0:1:0:0:1', '2001:db8::1:0:0:1'],
    ['2001:0:0:1:0:0:0:1', '2001:0:0:1::1'],
    ['2001:db8:0:1:1:1:1:1', '2001:db8:0:1:1:1:1:1'],
    ['::', '::'],
    ['::1', '::1'],
    ['::ffff:192.0.2.7', '192.0.2.7'],
    ['::FFFF:C000:0207', '192.0.2.7'],
    ['0:0:0:0:0:ffff:127.0.0.1', '127.0.0.1'],
    ['::192.0.2.7', '::c000:207'],
    ['::0.0.0.1', '::1'],
    ['64:ff9b::192.0.2.33', '64:ff9b::c000:221'],
  ])('%s is %s', (text, canonical) => {
    expect(parseIpAddress(text)).toBe(canonical)
  })

  test.each([
    '',
    ' 192.0.2.7',
    '192.0.2.7 ',
    '192.0.2.7\n',
    '192.0.2.07',
    '192.0.2',
    '192.0.2.256',
    '0xc0.0.2.7',
    '3221225991',
    'fe80::1%eth0',
    '::1%0',
    '[::1]',
    '1::2::3',
    '12345::',
    ':1',
    'localhost',
    '192.0.2.7\0',
  ])('%j is not an address', text => {
    expect(parseIpAddress(text)).toBeUndefined()
  })

  test('every text of an IPv6 address has the same canonical text', () => {
    fc.assert(
      fc.property(fc.array(anyGroup, { minLength: 8, maxLength: 8 }), groups => {
        const texts = new Set(spellings(groups).map(text => parseIpAddress(text)))
        expect([...texts]).toHaveLength(1)
        expect(texts.has(undefined)).toBe(false)
      }),
    )
  })

  test('canonical text is a fixed point, and octets are its inverse', () => {
    fc.assert(
      fc.property(anyIpAddress, address => {
        expect(parseIpAddress(address)).toBe(address)
        expect(readAddress(addressBytes(address))).toBe(address)
        expect(readAddress(addressBytes(address, 6))).toBe(address)
        expect(addressBytes(address)).toHaveLength(familyOf(address) === 4 ? 4 : 16)
      }),
    )
  })

  test('octets have the text and the parse of ipaddr.js', () => {
    const octets = fc.array(anyGroup, { minLength: 8, maxLength: 8 }).map(groups => {
      return Uint8Array.from(groups.flatMap(group => [group >> 8, group & 255]))
    })
    fc.assert(
      fc.property(octets, bytes => {
        const address = new ipaddr.IPv6([...bytes])
        const isMapped = address.isIPv4MappedAddress()
        const text = isMapped ? address.toIPv4Address().toString() : address.toRFC5952String()
        expect(readAddress(bytes)).toBe(text)
        expect([...addressBytes(ip(text), 6)]).toEqual(isMapped ? [...bytes] : ipaddr.IPv6.parse(text).toByteArray())
      }),
      { numRuns: 2000 },
    )
  })

  test('no text makes it throw', () => {
    fc.assert(
      fc.property(fc.string({ unit: fc.constantFrom(...'0123456789abcfF:.%/[] \0é') }), text => {
        const address = parseIpAddress(text)
        expect(address === undefined || parseIpAddress(address) === address).toBe(true)
        expect(() => parseNetwork(text)).not.toThrow()
      }),
    )
  })

  test('the texts of addresses are those of the runtime without a zone', () => {
    const near = fc
      .tuple(fc.array(anyGroup, { minLength: 8, maxLength: 8 }), fc.nat(50), fc.constantFrom(...'0:.%gF '))
      .map(([groups, at, character]) => {
        const [text = ''] = spellings(groups)
        return text.slice(0, at) + character + text.slice(at)
      })
    fc.assert(
      fc.property(fc.oneof(near, fc.string({ unit: fc.constantFrom(...'01fF::.'), maxLength: 50 })), text => {
        expect(parseIpAddress(text) !== undefined).toBe(isIP(text) !== 0 && !text.includes('%'))
      }),
      { numRuns: 5000 },
    )
  })

  test('an IPv4 address has the octets of its IPv4-mapped form where a form of IPv6 is needed', () => {
    expect([...addressBytes(ip('192.0.2.7'), 6)]).toEqual([...Array(10).fill(0), 0xff, 0xff, 192, 0, 2, 7])
    expect([...addressBytes(ip('192.0.2.7'))]).toEqual([192, 0, 2, 7])
  })

  test('octets of another length throw', () => {
    expect(() => readAddress(new Uint8Array(5))).toThrow(new TypeError('an address of 5 octets'))
  })
})

test.each([
  ['fe80::1%eth0', 'fe80::1'],
  ['::ffff:192.0.2.7', '192.0.2.7'],
  ['192.0.2.7', '192.0.2.7'],
  ['', undefined],
  [undefined, undefined],
])('the address of a socket of the runtime, %s, is %s', (text, address) => {
  expect(parseSocketIp(text)).toBe(address)
})

describe('networks', () => {
  test.each([
    ['192.0.2.0/24', '192.0.2.0/24'],
    ['192.0.2.7', '192.0.2.7/32'],
    ['0.0.0.0/0', '0.0.0.0/0'],
    ['2001:DB8::/32', '2001:db8::/32'],
    ['::1', '::1/128'],
    ['::ffff:192.0.2.0/24', '192.0.2.0/24'],
  ])('%s is %s', (text, canonical) => {
    const network = parseNetwork(text)
    expect(network && formatNetwork(network)).toBe(canonical)
  })

  test.each([
    '192.0.2.1/24',
    '192.0.2.0/33',
    '192.0.2.0/',
    '192.0.2.0/-1',
    '192.0.2.0/24/8',
    '0.0.0.0/0x',
    '0.0.0.0/0000',
    '192.0.2.0/ 24',
    '2001:db8::1/64',
    '2001:db8::/129',
    '/24',
    'any',
  ])('%j is not a network', text => {
    expect(parseNetwork(text)).toBeUndefined()
  })

  test('the networks around an address are its networks of each length, from the longest one', () => {
    fc.assert(
      fc.property(anyIpAddress, address => {
        const lengths = Array.from({ length: addressBytes(address).length * 8 - 1 }, (_, n) => n + 1).reverse()
        expect([...networksAround(address)]).toEqual(lengths.map(length => networkOf(address, length)))
      }),
    )
  })

  test('an address lies in each of its networks, and the network is its own text', () => {
    fc.assert(
      fc.property(anyIpAddress, fc.nat(128), (address, prefixLength) => {
        const network = networkOf(address, prefixLength)
        expect(networkContains(network, address)).toBe(true)
        expect(networkContains(network, network.base)).toBe(true)
        expect(parseNetwork(formatNetwork(network))).toEqual(network)
      }),
    )
  })

  test('one flipped bit inside the prefix leaves the network, outside it stays', () => {
    const bitOf = (address: IpAddress) => fc.nat(familyOf(address) === 4 ? 31 : 127)
    const cases = anyIpAddress.chain(address => fc.tuple(fc.constant(address), bitOf(address), bitOf(address)))
    fc.assert(
      fc.property(cases, ([address, bit, prefixLength]) => {
        const bytes = addressBytes(address)
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (0x80 >> (bit & 7))
        const other = readAddress(bytes)
        fc.pre(familyOf(other) === familyOf(address))
        const network = networkOf(address, prefixLength)
        expect(networkContains(network, other)).toBe(bit >= prefixLength)
        expect(new NetworkSet([network]).has(other)).toBe(bit >= prefixLength)
      }),
    )
  })

  test.each([
    ['192.0.2.7', true],
    ['192.0.2.6/31', false],
    ['0.0.0.0/0', false],
    ['2001:db8::7', true],
    ['2001:db8::6/127', false],
    ['2001:db8::/32', false],
  ])('%s is one address: %s', (text, isSingle) => {
    expect(isSingleAddress(parseNetwork(text) ?? expect.unreachable(text))).toBe(isSingle)
  })

  test('families never match each other', () => {
    const everyV6 = parseNetwork('::/0')
    const everyV4 = parseNetwork('0.0.0.0/0')
    if (everyV4 === undefined || everyV6 === undefined) throw new Error('not parsed')
    expect(networkContains(everyV6, ip('192.0.2.7'))).toBe(false)
    expect(networkContains(everyV4, ip('2001:db8::7'))).toBe(false)
  })

  test('an empty set holds no address', () => {
    fc.assert(
      fc.property(anyIpAddress, address => {
        expect(new NetworkSet([]).has(address)).toBe(false)
      }),
    )
  })

  test.each([
    [LOOPBACK, ['127.0.0.1', '127.255.255.255', '::1', '::ffff:127.0.0.1'], ['126.255.255.255', '128.0.0.0', '::2']],
    [
      NEVER_GRANTED,
      ['0.0.0.0', '0.1.2.3', '169.254.1.1', '224.0.0.1', '255.255.255.255', '::', 'fe80::1', 'febf::1', 'ff02::1'],
      ['1.0.0.0', '192.0.2.7', '2001:db8::1', 'fec0::1', '223.255.255.255'],
    ],
    [
      PRIVATE_NETWORKS,
      ['10.0.0.1', '172.16.0.1', '172.31.255.255', '192.168.9.9', '100.64.0.1', '100.127.255.255', 'fd00::1'],
      ['11.0.0.0', '172.32.0.0', '172.15.0.0', '192.169.0.0', '100.128.0.0', '2001:db8::1'],
    ],
  ])('the listed networks contain the documented addresses, case %#', (set, inside, outside) => {
    for (const text of inside) expect([text, set.has(ip(text))]).toEqual([text, true])
    for (const text of outside) expect([text, set.has(ip(text))]).toEqual([text, false])
  })
})
