/** IP addresses in canonical form, networks, sets of networks, and their differences. */
import { BlockList, isIPv4, isIPv6 } from 'node:net'
import ipaddr from 'ipaddr.js'

/** A network as octets, so that networks can be compared bit by bit. */
type Bits = { readonly bytes: Uint8Array; readonly length: number }

const bitsOf = ({ base, prefixLength }: Network): Bits => ({ bytes: addressBytes(base), length: prefixLength })

/** Takes networks out of other networks, for tables of networks that cannot hold exceptions. */
export class NetworkDifference {
  readonly #taken: readonly Bits[]

  constructor(taken: Iterable<Network>) {
    this.#taken = [...taken].map(bitsOf)
  }

  /**
   * The largest networks that together contain every address of the network, except those that are
   * taken out.
   */
  of(network: Network): readonly Network[] {
    const bits = bitsOf(network)
    const inside = this.#taken.filter(taken => overlap(taken, bits))
    return inside.length === 0 ? [network] : remainder(bits, inside)
  }
}

/**
 * The parts of `network` outside of `taken`, networks that overlap it. Each of them adds at most
 * one part for each bit of its length.
 */
function remainder(network: Bits, taken: readonly Bits[]): readonly Network[] {
  if (taken.length === 0) {
    const base = readAddress(network.bytes)
    // Leave out IPv4-mapped addresses, because in canonical form they are IPv4 addresses.
    return familyOf(base) === (network.bytes.length === 4 ? 4 : 6) ? [{ base, prefixLength: network.length }] : []
  }
  if (taken.some(({ length }) => length <= network.length)) return []
  return halvesOf(network).flatMap(half =>
    remainder(
      half,
      taken.filter(each => overlap(each, half)),
    ),
  )
}

function halvesOf({ bytes, length }: Bits): readonly Bits[] {
  const upper = Uint8Array.from(bytes)
  const at = length >> 3
  upper[at] = (upper[at] ?? 0) | (0x80 >> (length & 7))
  return [bytes, upper].map(half => ({ bytes: half, length: length + 1 }))
}

/** True if one network contains the other: they have the same bits in the shorter prefix. */
function overlap(a: Bits, b: Bits): boolean {
  if (a.bytes.length !== b.bytes.length) return false
  const length = Math.min(a.length, b.length)
  const whole = length >> 3
  for (let n = 0; n < whole; n++) if (a.bytes[n] !== b.bytes[n]) return false
  const differing = (a.bytes[whole] ?? 0) ^ (b.bytes[whole] ?? 0)
  return differing >> (8 - (length & 7)) === 0
}

declare const canonical: unique symbol
/**
 * An address as its canonical text: dotted quad, or RFC 5952. An IPv4-mapped IPv6 address has the
 * text of its IPv4 address.
 */
export type IpAddress = string & { readonly [canonical]: 'IpAddress' }

/** The longest text of an address: six groups of IPv6 and a dotted quad. */
const MOST_CHARACTERS = 45

/**
 * Parses a numeric address. Undefined for all other texts, for an address with a zone, and for
 * short or octal forms of IPv4 (spec/syslog.md §5 rule 5).
 */
export function parseIpAddress(text: string): IpAddress | undefined {
  if (isIPv4(text)) return brand(text)
  if (text.length > MOST_CHARACTERS) return undefined
  // Most texts are canonical. A canonical text is the text of its octets.
  const canonicalText = readAddress(ipv6Octets(text))
  if (canonicalText === text) return canonicalText
  // The first call of isIPv6 takes more than 10 ms, because the runtime compiles a long pattern.
  if (!isIPv6(text) || text.includes('%')) return undefined
  const address = ipaddr.IPv6.parse(withoutDottedTail(text))
  return brand(address.isIPv4MappedAddress() ? address.toIPv4Address().toString() : address.toRFC5952String())
}

/**
 * The address of a socket of the runtime, which writes a zone behind a link-local address:
 * `fe80::1%eth0`. Undefined for a socket that is closed.
 */
export const parseSocketIp = (text: string | undefined): IpAddress | undefined =>
  parseIpAddress(text?.replace(/%.*/, '') ?? '')

/**
 * Returns `::c000:0207` for `::192.0.2.7`, because ipaddr.js reads an IPv4-compatible address in
 * dotted form as an IPv4-mapped one.
 */
function withoutDottedTail(text: string): string {
  const tail = text.slice(text.lastIndexOf(':') + 1)
  if (!tail.includes('.')) return text
  const hex = tail.split('.').map(octet => Number(octet).toString(16).padStart(2, '0'))
  return `${text.slice(0, -tail.length)}${hex.slice(0, 2).join('')}:${hex.slice(2).join('')}`
}

/** The address family, 4 or 6, as in node:net and in PostgreSQL's family(). */
export const familyOf = (ip: IpAddress): 4 | 6 => (ip.includes(':') ? 6 : 4)

/**
 * The octets of the address in network byte order, 4 or 16. With family 6 an IPv4 address becomes
 * IPv4-mapped.
 */
export function addressBytes(ip: IpAddress, family = familyOf(ip)): Uint8Array {
  if (familyOf(ip) === 6) return ipv6Octets(ip)
  const octets = new Uint8Array(family === 4 ? 4 : 16)
  if (family === 6) octets.set(MAPPED)
  const [number, at] = [ipv4Number(ip), octets.length - 4]
  for (let n = 0; n < 4; n += 1) octets[at + n] = number >> (24 - 8 * n)
  return octets
}

/** The octets of an IPv4-mapped address before the IPv4 address (RFC 4291 section 2.5.5.2). */
const MAPPED = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]

/**
 * Inverse of addressBytes: the address of 4 or 16 octets in network byte order. Throws TypeError
 * for another length.
 */
export function readAddress(bytes: Uint8Array): IpAddress {
  if (bytes.length === 4) return brand(dottedQuad(bytes, 0))
  if (bytes.length !== 16) throw new TypeError(`an address of ${bytes.length} octets`)
  const isMapped = MAPPED.every((octet, n) => bytes[n] === octet)
  return brand(isMapped ? dottedQuad(bytes, 12) : ipv6Text(bytes))
}

const dottedQuad = (bytes: Uint8Array, at: number): string =>
  `${bytes[at]}.${bytes[at + 1]}.${bytes[at + 2]}.${bytes[at + 3]}`

// Each login and each lookup needs the octets and the text of an address. ipaddr.js takes about
// ten times as long as the next two functions, because it parses every form of an address.

/** The octets of a canonical text. Other texts give other octets, and never an error. */
function ipv6Octets(ip: string): Uint8Array {
  const octets = new Uint8Array(16)
  let [length, group] = [0, 0]
  let gap: number | undefined
  for (let at = 0; at <= ip.length; at += 1) {
    if (at < ip.length && ip.charCodeAt(at) !== COLON) {
      const code = ip.charCodeAt(at)
      group = (group << 4) | (code <= NINE ? code - ZERO : code - LETTER_A + 10)
    } else if (at > 0 && ip.charCodeAt(at - 1) !== COLON) {
      octets[length] = group >> 8
      octets[length + 1] = group & 0xff
      length += 2
      group = 0
    } else if (at < ip.length) gap = length
  }
  if (gap !== undefined) {
    octets.copyWithin(16 - (length - gap), gap, length)
    octets.fill(0, gap, 16 - (length - gap))
  }
  return octets
}

/** The text of RFC 5952: the first of the longest runs of two or more zero groups becomes `::`. */
function ipv6Text(octets: Uint8Array): string {
  const group = (n: number): number => ((octets[2 * n] ?? 0) << 8) | (octets[2 * n + 1] ?? 0)
  let [gap, longest] = [8, 1]
  for (let from = 0; from < 8; from += 1) {
    const start = from
    while (from < 8 && group(from) === 0) from += 1
    if (from - start > longest) [gap, longest] = [start, from - start]
  }
  let text = ''
  for (let n = 0; n < 8; n += 1) {
    if (n === gap) {
      text += '::'
      n += longest - 1
    } else text += `${n === 0 || n === gap + longest ? '' : ':'}${group(n).toString(16)}`
  }
  return text
}

const [DOT, ZERO, NINE, COLON, LETTER_A] = [0x2e, 0x30, 0x39, 0x3a, 0x61]

/** An address block in CIDR notation; `base` has its host bits cleared. */
export type Network = { readonly base: IpAddress; readonly prefixLength: number }

/**
 * Parses `192.0.2.0/24`, `2001:db8::/32`, or a single address. Undefined for all other texts, and
 * if host bits are set.
 */
export function parseNetwork(text: string): Network | undefined {
  const slash = text.indexOf('/')
  const address = parseIpAddress(slash < 0 ? text : text.slice(0, slash))
  if (address === undefined) return undefined
  const bits = familyOf(address) === 4 ? 32 : 128
  if (slash < 0) return { base: address, prefixLength: bits }
  const digits = text.slice(slash + 1)
  if (!/^\d{1,3}$/.test(digits) || Number(digits) > bits) return undefined
  const network = networkOf(address, Number(digits))
  return network.base === address ? network : undefined
}

/**
 * The network of this length that contains the address. A length above 32 for IPv4 counts as 32.
 */
export function networkOf(ip: IpAddress, prefixLength: number): Network {
  const length = Math.min(prefixLength, familyOf(ip) === 4 ? 32 : 128)
  const octets = addressBytes(ip).map((octet, n) => octet & ~(0xff >> Math.max(0, Math.min(8, length - n * 8))))
  return { base: readAddress(octets), prefixLength: length }
}

/** The networks that contain the address, from the longest one to that of one bit. */
export function* networksAround(ip: IpAddress): Generator<Network> {
  const octets = addressBytes(ip)
  let base = ip
  for (let prefixLength = octets.length * 8 - 1; prefixLength > 0; prefixLength--) {
    const octet = octets[prefixLength >> 3] ?? 0
    const bit = 0x80 >> (prefixLength & 7)
    // Most bits are 0, and the text of an address is expensive.
    if ((octet & bit) !== 0) {
      octets[prefixLength >> 3] = octet & ~bit
      base = readAddress(octets)
    }
    yield { base, prefixLength }
  }
}

/** The network in CIDR notation. */
export const formatNetwork = ({ base, prefixLength }: Network): string => `${base}/${prefixLength}`

/** True for a network of one address. */
export const isSingleAddress = ({ base, prefixLength }: Network): boolean =>
  prefixLength === (familyOf(base) === 4 ? 32 : 128)

/** True if the network contains the address. Different families never match. */
export function networkContains({ base, prefixLength }: Network, ip: IpAddress): boolean {
  return familyOf(base) === familyOf(ip) && networkOf(ip, prefixLength).base === base
}

/**
 * A fixed set of networks, for many lookups. An empty set contains no address, so that an empty
 * list of trusted peers trusts no peer.
 */
export class NetworkSet {
  readonly networks: readonly Network[]
  /** IPv4 bases by mask. A BlockList is slower, because it makes an object for each lookup. */
  readonly #ipv4 = new Map<number, Set<number>>()
  /**
   * IPv6 networks alone, because a BlockList treats an IPv4 address as its mapped IPv6 address,
   * which `::/0` contains.
   */
  #ipv6: BlockList | undefined

  constructor(networks: Iterable<Network>) {
    this.networks = [...networks]
    for (const { base, prefixLength } of this.networks) {
      if (familyOf(base) === 4) {
        const mask = ipv4Mask(prefixLength)
        const bases = this.#ipv4.get(mask) ?? new Set()
        this.#ipv4.set(mask, bases.add(ipv4Number(base) & mask))
      } else {
        this.#ipv6 ??= new BlockList()
        this.#ipv6.addSubnet(base, prefixLength, 'ipv6')
      }
    }
  }

  /** True if any network of the set holds the address. */
  has(ip: IpAddress): boolean {
    if (familyOf(ip) === 6) return this.#ipv6?.check(ip, 'ipv6') === true
    if (this.#ipv4.size === 0) return false
    const number = ipv4Number(ip)
    for (const [mask, bases] of this.#ipv4) if (bases.has(number & mask)) return true
    return false
  }
}

const ipv4Mask = (prefixLength: number): number => (prefixLength === 0 ? 0 : -1 << (32 - prefixLength))

/** The 32 bits of a dotted quad as a signed number. */
function ipv4Number(ip: IpAddress): number {
  let [number, octet] = [0, 0]
  for (let at = 0; at < ip.length; at += 1) {
    const code = ip.charCodeAt(at)
    if (code === DOT) {
      number = (number << 8) | octet
      octet = 0
    } else octet = octet * 10 + code - ZERO
  }
  return (number << 8) | octet
}

const listed = (...texts: string[]): Network[] =>
  texts.map(text => {
    const network = parseNetwork(text)
    if (network === undefined) throw new TypeError(`not a network: ${text}`)
    return network
  })

/** Loopback of both families. Never granted without `grant_loopback` (demonstration and tests). */
export const LOOPBACK = new NetworkSet(listed('127.0.0.0/8', '::1/128'))

/** Other networks that are never granted (spec/wrap-and-db.md §4). */
export const NEVER_GRANTED = new NetworkSet(
  listed('0.0.0.0/8', '169.254.0.0/16', '224.0.0.0/4', '240.0.0.0/4', '::/128', 'fe80::/10', 'ff00::/8'),
)

/**
 * Private and carrier-grade NAT networks, not granted with `deny_private` (spec/wrap-and-db.md §4).
 */
export const PRIVATE_NETWORKS = new NetworkSet(
  listed('10.0.0.0/8', '172.16.0.0/12', '192.168.0.0/16', '100.64.0.0/10', 'fc00::/7'),
)

/**
 * Marks a text as an IpAddress. Each caller has made the text canonical. The check is short,
 * because a check of the whole text takes longer than making it.
 */
function brand(text: string): IpAddress {
  if (!hasSeparator(text)) throw new TypeError(`not a canonical address: ${text}`)
  return text
}

function hasSeparator(text: string): text is IpAddress {
  return text.includes(':') || text.includes('.')
}
