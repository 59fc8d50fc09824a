/**
 * Rules of tcprules(1): the keys of a rules cdb, and the text and data of rules.
 *
 * Three programs make and read such files. They spell IPv6 addresses and networks differently, so
 * that a program does not find the rules of another one:
 *
 * - ucspi-tcp has IPv4 only: the address, then prefixes that end in a dot.
 * - ucspi-tcp with the IPv6 patch (Debian's ucspi-tcp-ipv6) takes the text of the address, then
 *   prefixes of that text that end in a dot or a colon (`2001:db8::`).
 * - ucspi-tcp6 writes an IPv6 address as eight groups of four capital digits, and a network as `^`
 *   (IPv6) or `_` (IPv4) with a character for each bit; before version 1.11 a NUL follows.
 *
 * A key has one character for each octet.
 */
import {
  addressBytes,
  familyOf,
  formatNetwork,
  type IpAddress,
  type Network,
  networkOf,
  networksAround,
  parseIpAddress,
} from './ip-address.ts'

/** The properties of a connection that rules use. */
export type TcpRuleQuery = {
  readonly ip: IpAddress
  readonly host?: string | undefined
  readonly info?: string | undefined
}

/**
 * The keys that a rule for a connection may have, in the order of tcpserver's lookups. The first
 * key that is found counts (tcprules(1)).
 */
export function* tcpRuleKeys({ ip, host, info }: TcpRuleQuery): Generator<string> {
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
  // No tcpserver looks up these keys. The gate does, so that CIDR in a rules text has its usual
  // meaning.
  if (familyOf(ip) === 6) for (const network of networksAround(ip)) yield formatNetwork(network)
  if (name !== undefined) {
    for (let dot = name.indexOf('.'); dot >= 0; dot = name.indexOf('.', dot + 1)) yield `=${name.slice(dot)}`
    yield '='
  }
  yield ''
}

/** Keys of a network: its own, and the keys that tcpserver looks up after it, in this order. */
export type TcpRuleKeys = { readonly own: readonly string[]; readonly around: readonly string[] }

/**
 * Keys that ucspi-tcp and Debian's ucspi-tcp-ipv6 look up for every address of the network. There
 * are none for an IPv6 network that does not end between two groups, and at most 128 for an IPv4
 * network. A key for an IPv6 network writes each group, because a prefix with `::` would also begin
 * addresses of other networks. So addresses that are printed with `::` within the prefix are not
 * found.
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

/** The prefixes of an IPv4 network: `10.1.128.`, … `10.1.255.` for 10.1.128.0/17. */
function dottedTexts(base: IpAddress, prefixLength: number): readonly string[] {
  const octets = Math.ceil(prefixLength / 8)
  const numbers = [...addressBytes(base)].slice(0, octets)
  const last = numbers.pop() ?? 0
  const end = octets === 4 ? '' : '.'
  return Array.from({ length: 2 ** (octets * 8 - prefixLength) }, (_, i) => [...numbers, last + i].join('.') + end)
}

/** Keys that ucspi-tcp6 looks up for every address of the network. */
export function bitRuleKeys(network: Network): TcpRuleKeys {
  const { base, prefixLength } = network
  if (prefixLength === 0) return { own: [], around: [''] }
  const own = prefixLength === widthOf(base) ? [fullTextOf(base)] : bitKeys(network)
  // Dotted prefixes of IPv4 come before all bits.
  const dotted = familyOf(base) === 4 ? [...textPrefixes(base)].slice(3 - Math.min(3, prefixLength >> 3)) : []
  return { own, around: [...dotted, ...bitKeysAround(network), ''] }
}

/**
 * Keys, other than the text itself, under which ucspi-tcp6's tcprules stores a rule for this
 * address text. Empty for a text that is neither an IPv6 address nor a network in CIDR notation.
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

/**
 * Parses a network as ucspi-tcp6 does: `2001:db8::/32`, `2001:db8::7`, `10.0.0.0/8`, `10./8`.
 * Undefined for `10.` and all other texts.
 */
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

/**
 * Prefixes of a text that end in a dot or a colon, the longest first. The text itself is one if it
 * ends in this way.
 */
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

/**
 * The address as ucspi-tcp-ipv6 prints it. Unlike in RFC 5952, `::` may stand for one group of
 * zeros.
 */
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

/** The address as ucspi-tcp6 writes it in a key. */
const fullTextOf = (ip: IpAddress): string =>
  familyOf(ip) === 4
    ? ip
    : groupsOf(ip)
        .map(group => group.padStart(4, '0').toUpperCase())
        .join(':')

const IPV4_ONES = 'abcdefghijklmnopqrstuvwxyz123456'

/** The network as `^` or `_` and its bits: a zero as `0`, a one as a letter. */
function bitsOf({ base, prefixLength }: Network): string {
  const octets = addressBytes(base)
  const isIpv4 = octets.length === 4
  let text = isIpv4 ? '_' : '^'
  let ones = 0
  for (let bit = 0; bit < prefixLength; bit++) {
    const isOne = ((octets[bit >> 3] ?? 0) & (0x80 >> (bit & 7))) !== 0
    // In IPv4 the letter shows the place of the bit, in IPv6 its number among the ones.
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

/**
 * The action of a rule for a connection: refuse it, or admit it with some variables (tcprules(1)).
 */
export type TcpRule = { readonly allow: boolean; readonly environment: Readonly<Record<string, string | Uint8Array>> }

/** A record of a rules cdb. The key has one character for each octet. */
export type TcpRuleRecord = { readonly key: string; readonly data: Uint8Array }

/** A line that is not a rule: its number, from 1, and the reason. */
export type TcpRuleFault = { readonly line: number; readonly reason: string }

/**
 * Parses a rules text like tcprules: it accepts and skips the same lines, and makes the same
 * records. An address may contain colons, as in Debian's ucspi-tcp-ipv6 and ucspi-tcp6: the
 * instruction begins at the first `:allow` or `:deny`. A line without a colon is skipped. Returns
 * all faults, while tcprules stops at the first one.
 */
export function parseTcpRules(text: Uint8Array): {
  readonly records: readonly TcpRuleRecord[]
  readonly faults: readonly TcpRuleFault[]
} {
  const records: TcpRuleRecord[] = []
  const faults: TcpRuleFault[] = []
  for (const [index, raw] of Buffer.from(text).toString('latin1').split('\n').entries()) {
    if (raw.startsWith('#')) continue
    const line = withoutBlanks(raw)
    if (!line.includes(':')) continue
    const parsed = parseLine(line)
    if (typeof parsed !== 'string') records.push(...parsed)
    else faults.push({ line: index + 1, reason: line.endsWith('\r') ? CARRIAGE_RETURN : parsed })
  }
  return { records, faults }
}

const CARRIAGE_RETURN = 'the line ends in a carriage return. Save the file with Unix line ends'

/** Removes spaces and tabs at the end. A carriage return stays, because it does in tcprules too. */
function withoutBlanks(line: string): string {
  let length = line.length
  while (line[length - 1] === ' ' || line[length - 1] === '\t') length--
  return line.slice(0, length)
}

function parseLine(line: string): readonly TcpRuleRecord[] | string {
  let colon = line.indexOf(':')
  const instructionAt = (): string | undefined => INSTRUCTIONS.find(word => line.startsWith(word, colon + 1))
  while (colon >= 0 && instructionAt() === undefined) colon = line.indexOf(':', colon + 1)
  const instruction = colon < 0 ? undefined : instructionAt()
  if (instruction === undefined) return 'write ADDRESS:allow or ADDRESS:deny, then ,NAME="value"'
  const variables = parseVariables(line, colon + 1 + instruction.length)
  if (variables === undefined) return 'after the instruction only ,NAME="value" may follow'
  const address = line.slice(0, colon)
  const keys = expand(address)
  if (keys === undefined) return `the range in ${address} is invalid`
  const data = Buffer.from(`${instruction === 'deny' ? 'D\0' : ''}${variables}`, 'latin1')
  return keys.map(key => ({ key, data }))
}

const INSTRUCTIONS = ['deny', 'allow'] as const

/**
 * Parses `,NAME="value",NAME=/value/` into the data of a record. The character after `=` is the
 * quote. Undefined if the text has another form.
 */
function parseVariables(line: string, start: number): string | undefined {
  let data = ''
  for (let at = start; at < line.length; ) {
    const equals = line.indexOf('=', at)
    const quote = line[equals + 1]
    if (line[at] !== ',' || equals < 0 || quote === undefined) return undefined
    const end = line.indexOf(quote, equals + 2)
    if (end < 0) return undefined
    data += `+${line.slice(at + 1, equals + 1)}${line.slice(equals + 2, end)}\0`
    at = end + 1
  }
  return data
}

/**
 * The addresses or prefixes of a range: `1.2.3.37-53` has seventeen addresses, `10.0.1-3.` three
 * prefixes, `10.0.5-3.` none. Host names and idents (`user@1.2.3.4`, `=.example.org`) have no
 * ranges.
 */
function expand(address: string): readonly string[] | undefined {
  const hyphen = address.indexOf('-')
  if (hyphen < 0 || /[=@]/.test(address)) return [address]
  const left = address.lastIndexOf('.', hyphen) + 1
  const dot = address.indexOf('.', hyphen)
  const right = dot < 0 ? address.length : dot
  const low = numberOf(address.slice(left, hyphen))
  const high = numberOf(address.slice(hyphen + 1, right))
  if (low === undefined || high === undefined) return undefined
  const last = high > 255n ? 255n : high
  const keys: string[] = []
  for (let number = low; number <= last; number++) {
    keys.push(`${address.slice(0, left)}${number}${address.slice(right)}`)
  }
  return keys
}

/** Parses a number like tcprules' scan_ulong: up to a NUL, no digits mean 0, modulo 2^64. */
function numberOf(text: string): bigint | undefined {
  const [digits = ''] = text.split('\0')
  if (!/^\d*$/.test(digits)) return undefined
  let number = 0n
  for (const digit of digits) number = BigInt.asUintN(64, number * 10n + BigInt(digit))
  return number
}

/**
 * The data of a rule's record: `D` and NUL for deny, then `+NAME=value` and NUL for each variable.
 */
export function formatTcpRule({ allow, environment }: TcpRule): Buffer {
  const variables = Object.entries(environment).flatMap(([name, value]) => [
    Buffer.from(`+${name}=`),
    Buffer.from(value),
    Uint8Array.of(0),
  ])
  return Buffer.concat([...(allow ? [] : [Buffer.from('D\0')]), ...variables])
}

/** Inverse of formatTcpRule, also for files of tcprules. Values that are not UTF-8 stay octets. */
export function parseTcpRule(data: Uint8Array): TcpRule {
  const environment: Record<string, string | Uint8Array> = {}
  let allow = true
  const bytes = Buffer.from(data)
  for (let at = 0; at < bytes.length; ) {
    const nul = bytes.indexOf(0, at)
    const piece = bytes.subarray(at, nul < 0 ? bytes.length : nul)
    const equals = piece.indexOf('=')
    if (piece[0] === 0x44) allow = false
    else if (piece[0] === 0x2b && equals > 0) {
      const value = piece.subarray(equals + 1)
      const text = value.toString()
      environment[piece.toString('latin1', 1, equals)] = Buffer.from(text).equals(value) ? text : value
    }
    at += piece.length + 1
  }
  return { allow, environment }
}
