import {
  addressBytes,
  familyOf,
  formatNetwork,
  type IpAddress,
  type Network,
  networkOf,
  parseIpAddress,
} from './ip-address.ts'

/**
 * Keys of a rules cdb. Three programs make and read such files, and they spell IPv6 and networks
 * differently, so that a rule of one is invisible to the others:
 *
 * - ucspi-tcp knows IPv4 only: the address, then prefixes that end in a dot.
 * - ucspi-tcp with the IPv6 patch (Debian's ucspi-tcp-ipv6) takes the text of the address as it
 *   prints it, then prefixes of that text that end in a dot or a colon (`2001:db8::`).
 * - ucspi-tcp6 writes an IPv6 address as eight groups of four capital digits, and a network as `^`
 *   (IPv6) or `_` (IPv4) with a character for each bit; before version 1.11 a NUL follows.
 *
 * A key has one character for each octet.
 */

/** What is asked about a connection. */
export type TcpRuleQuestion = {
  readonly ip: IpAddress
  readonly host?: string | undefined
  readonly info?: string | undefined
}

/** The addresses under which a rule may stand, in the order in which tcpserver asks for them: the first hit counts (tcprules(1)). */
export function* tcpRuleKeys({ ip, host, info }: TcpRuleQuestion): Generator<string> {
  const name = host?.toLowerCase()
  const spellings = new Set([ip, textOf(ip), fullTextOf(ip)])
  if (info !== undefined) {
    for (const spelling of spellings) yield `${info}@${spelling}`
    if (name !== undefined) yield `${info}@=${name}`
  }
  yield* spellings
  if (name !== undefined) yield `=${name}`
  yield* textPrefixes(textOf(ip))
  yield* bitKeysAround({ base: ip, prefixLength: widthOf(ip) })
  // No tcpserver asks for these. The gate does, so that CIDR in a rules text means what it says.
  if (familyOf(ip) === 6) for (let length = 127; length > 0; length--) yield formatNetwork(networkOf(ip, length))
  if (name !== undefined) {
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) yield `=${name.slice(dot)}`
    yield '='
  }
  yield ''
}

/** Keys of one network: its own, and those that tcpserver asks for after it, the most specific first. */
export type TcpRuleKeys = { readonly own: readonly string[]; readonly around: readonly string[] }

/**
 * Keys that ucspi-tcp and Debian's ucspi-tcp-ipv6 ask for about every address of the network. There
 * are none for an IPv6 network that does not end between two groups, and at most 128 for an IPv4
 * network. A key for an IPv6 network names each group, because a prefix that holds `::` begins
 * addresses of other networks as well; addresses that are printed with `::` within the prefix are
 * therefore not found.
 */
export function textRuleKeys(network: Network): readonly TcpRuleKeys[] {
  const { base, prefixLength } = network
  return textsOf(base, prefixLength).map(text => ({ own: [text], around: [...textPrefixes(text), ''] }))
}

function textsOf(base: IpAddress, prefixLength: number): readonly string[] {
  if (prefixLength === 0) return []
  if (familyOf(base) === 4) return dottedTexts(base, prefixLength)
  if (prefixLength === 128) return [textOf(base)]
  return prefixLength % 16 === 0
    ? [
        `${groupsOf(base)
          .slice(0, prefixLength / 16)
          .join(':')}:`,
      ]
    : []
}

/** 10.1.128.0/17 as `10.1.128.`, `10.1.129.` … `10.1.255.`. */
function dottedTexts(base: IpAddress, prefixLength: number): readonly string[] {
  const octets = Math.ceil(prefixLength / 8)
  const numbers = [...addressBytes(base)].slice(0, octets)
  const last = numbers.pop() ?? 0
  const end = octets === 4 ? '' : '.'
  return Array.from({ length: 2 ** (octets * 8 - prefixLength) }, (_, i) => [...numbers, last + i].join('.') + end)
}

/** Keys that ucspi-tcp6 asks for about every address of the network. */
export function bitRuleKeys(network: Network): TcpRuleKeys {
  const { base, prefixLength } = network
  if (prefixLength === 0) return { own: [], around: [''] }
  const own = prefixLength === widthOf(base) ? [fullTextOf(base)] : bitKeys(network)
  // Dotted prefixes of IPv4 come before all bits.
  const dotted = familyOf(base) === 4 ? [...textPrefixes(base)].slice(3 - Math.min(3, prefixLength >> 3)) : []
  return { own, around: [...dotted, ...bitKeysAround(network), ''] }
}

/**
 * Keys under which ucspi-tcp6's tcprules files a rule for this address text, as far as they are not
 * the text itself. Empty for everything that is no IPv6 address and no network in CIDR notation.
 */
export function bitKeysOfText(address: string): readonly string[] {
  if (address.includes('=')) return []
  const at = address.indexOf('@')
  const network = networkOfText(address.slice(at + 1))
  if (network === undefined) return []
  const isSingle = !address.includes('/')
  if (at >= 0) return isSingle ? [`${address.slice(0, at)}@${fullTextOf(network.base)}`] : []
  return isSingle ? [fullTextOf(network.base)] : bitKeys(network)
}

/** The network that ucspi-tcp6 reads in `2001:db8::/32`, `2001:db8::7`, `10.0.0.0/8` and `10./8`; undefined for `10.` and all else. */
export function networkOfText(address: string): Network | undefined {
  const [text = '', digits, ...rest] = address.split('/')
  if (rest.length > 0 || (digits === undefined && !address.includes(':'))) return undefined
  const ip = parseIpAddress(text.includes(':') ? text : fourOctets(text))
  if (ip === undefined || (digits !== undefined && !/^\d{1,3}$/.test(digits))) return undefined
  const prefixLength = digits === undefined ? widthOf(ip) : Number(digits)
  return prefixLength < 1 || prefixLength > widthOf(ip) ? undefined : networkOf(ip, prefixLength)
}

function fourOctets(text: string): string {
  const numbers = text.replace(/\.$/, '').split('.')
  return [...numbers, ...Array.from({ length: Math.max(0, 4 - numbers.length) }, () => '0')].join('.')
}

const widthOf = (ip: IpAddress): number => (familyOf(ip) === 4 ? 32 : 128)

/** Prefixes of a text that end in a dot or a colon, the longest first; the text itself too, if it ends so. */
function* textPrefixes(text: string): Generator<string> {
  for (let length = text.length; length > 0; length--) {
    const last = text[length - 1]
    if (last === '.' || last === ':') yield text.slice(0, length)
  }
}

const groupsOf = (ip: IpAddress): readonly string[] => {
  const octets = addressBytes(ip, 6)
  return Array.from({ length: 8 }, (_, i) => (((octets[2 * i] ?? 0) << 8) | (octets[2 * i + 1] ?? 0)).toString(16))
}

/** As ucspi-tcp-ipv6 prints an address: unlike RFC 5952, `::` also stands for a single group of zeros. */
function textOf(ip: IpAddress): string {
  if (familyOf(ip) === 4) return ip
  const groups = groupsOf(ip)
  let [from, count] = [0, 0]
  for (let start = 0; start < 8; start++) {
    const end = groups.findIndex((group, i) => i >= start && group !== '0')
    const zeros = (end < 0 ? 8 : end) - start
    if (zeros > count) [from, count] = [start, zeros]
  }
  if (count === 0) return groups.join(':')
  return `${groups.slice(0, from).join(':')}::${groups.slice(from + count).join(':')}`
}

/** As ucspi-tcp6 spells an address in a key. */
const fullTextOf = (ip: IpAddress): string =>
  familyOf(ip) === 4
    ? ip
    : groupsOf(ip)
        .map(group => group.padStart(4, '0').toUpperCase())
        .join(':')

const IPV4_ONES = 'abcdefghijklmnopqrstuvwxyz123456'

/** The network as `^` or `_` and its bits: zeros as `0`, ones as letters that count on. */
function bitsOf({ base, prefixLength }: Network): string {
  const octets = addressBytes(base)
  const isIpv4 = octets.length === 4
  let text = isIpv4 ? '_' : '^'
  let ones = 0
  for (let bit = 0; bit < prefixLength; bit++) {
    const isOne = ((octets[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0
    // A letter for its place in IPv4, for its number among the ones in IPv6.
    if (!isOne) text += '0'
    else text += isIpv4 ? IPV4_ONES.charAt(bit) : String.fromCharCode(96 + ones++)
  }
  return text
}

const bitKeys = (network: Network): readonly string[] => {
  const bits = bitsOf(network)
  return [bits, `${bits}\0`]
}

function* bitKeysAround(network: Network): Generator<string> {
  const bits = bitsOf(network)
  for (let length = bits.length; length > 1; length--) {
    yield bits.slice(0, length)
    yield `${bits.slice(0, length)}\0`
  }
}
