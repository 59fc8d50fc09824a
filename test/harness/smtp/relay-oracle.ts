/**
 * Computes which addresses may relay, from the text of the documents and without modules of src/.
 * The answers of every service and table are compared with it. Addresses are numbers here, and
 * times are seconds from now.
 */

/** An address by its number. */
export type Address = { readonly family: 4 | 6; readonly bits: bigint }
export type Net = Address & { readonly length: number }

export const v4 = (...octets: readonly [number, number, number, number]): Address => ({
  family: 4,
  bits: octets.reduce((bits, octet) => (bits << 8n) | BigInt(octet), 0n),
})
/** An IPv6 address by its groups; missing groups at the end are 0. */
export const v6 = (...groups: readonly number[]): Address => ({
  family: 6,
  bits: Array.from({ length: 8 }, (_, index) => groups[index] ?? 0).reduce(
    (bits, group) => (bits << 16n) | BigInt(group),
    0n,
  ),
})
const widthOf = ({ family }: Address): number => (family === 4 ? 32 : 128)
export function netOf(address: Address, length: number): Net {
  const hostBits = BigInt(widthOf(address) - length)
  return { family: address.family, bits: (address.bits >> hostBits) << hostBits, length }
}
const alone = (address: Address): Net => netOf(address, widthOf(address))
const isSingle = (net: Net): boolean => net.length === widthOf(net)
const holds = (net: Net, address: Address): boolean =>
  address.family === net.family && netOf(address, net.length).bits === net.bits
const isWithin = (inner: Net, outer: Net): boolean => inner.length >= outer.length && holds(outer, inner)
const overlap = (a: Net, b: Net): boolean => isWithin(a, b) || isWithin(b, a)
const isSame = (a: Net, b: Net): boolean => a.length === b.length && holds(a, b)

const groupsOf = (bits: bigint): readonly number[] =>
  Array.from({ length: 8 }, (_, index) => Number((bits >> BigInt(112 - 16 * index)) & 0xffffn))
const dotted = (bits: bigint): string => [24n, 16n, 8n, 0n].map(shift => String((bits >> shift) & 0xffn)).join('.')

/** The canonical text; for IPv6 as in RFC 5952. */
export function textOf({ family, bits }: Address): string {
  if (family === 4) return dotted(bits)
  const groups = groupsOf(bits)
  let [from, count] = [0, 1]
  for (let start = 0; start < 8; start += 1) {
    let end = start
    while (end < 8 && groups[end] === 0) end += 1
    if (end - start > count) [from, count] = [start, end - start]
  }
  const hex = groups.map(group => group.toString(16))
  return count < 2 ? hex.join(':') : `${hex.slice(0, from).join(':')}::${hex.slice(from + count).join(':')}`
}
export const netText = (net: Net): string => `${textOf(net)}/${net.length}`

/**
 * Four texts of the address, the canonical one first. For IPv4 the others are texts of the
 * IPv4-mapped address.
 */
export function spellingsOf({ family, bits }: Address): readonly string[] {
  const mapped = family === 4 ? (0xffffn << 32n) | bits : bits
  const hex = groupsOf(mapped).map(group => group.toString(16))
  return [
    textOf({ family, bits }),
    hex.join(':'),
    hex.map(group => group.padStart(4, '0').toUpperCase()).join(':'),
    `${hex.slice(0, 6).join(':')}:${dotted(mapped & 0xffffffffn)}`,
  ]
}

/** The address as 16 octets; IPv4 is mapped. */
export function octetsOf({ family, bits }: Address): Buffer {
  const number = family === 4 ? (0xffffn << 32n) | bits : bits
  return Buffer.from(number.toString(16).padStart(32, '0'), 'hex')
}

/** `at`: offset of the IPv4 octets in an address of the network. */
export type Embedding = { readonly net: Net; readonly at: readonly number[]; readonly isInverted?: true }

const LAST = [12, 13, 14, 15]
export const EMBEDDINGS = {
  nat64: { net: netOf(v6(0x64, 0xff9b), 96), at: LAST },
  translated: { net: netOf(v6(0, 0, 0, 0, 0xffff), 96), at: LAST },
  compatible: { net: netOf(v6(), 96), at: LAST },
  site96: { net: netOf(v6(0x2001, 0xdb8, 0x64), 96), at: LAST },
  // RFC 6052: bits 64 to 71 are not part of the IPv4 address.
  site64: { net: netOf(v6(0x2001, 0xdb8, 0x65), 64), at: [9, 10, 11, 12] },
  sixToFour: { net: netOf(v6(0x2002), 16), at: [2, 3, 4, 5] },
  teredo: { net: netOf(v6(0x2001), 32), at: LAST, isInverted: true },
} as const satisfies Readonly<Record<string, Embedding>>
const EMBEDDING_LIST: readonly Embedding[] = Object.values(EMBEDDINGS)
/** RFC 8215: the position of the IPv4 address is a choice of the site. */
const LOCAL_TRANSLATION = netOf(v6(0x64, 0xff9b, 1), 48)

/** The IPv6 address that a translator makes from an IPv4 address. */
export function embed({ net, at, isInverted }: Embedding, { bits }: Address): Address {
  const octets = octetsOf(net)
  const four = octetsOf({ family: 4, bits }).subarray(12)
  for (const [index, place] of at.entries()) octets[place] = (four[index] ?? 0) ^ (isInverted ? 0xff : 0)
  return { family: 6, bits: BigInt(`0x${octets.toString('hex')}`) }
}

export function embeddedIpv4(address: Address): Address | undefined {
  if (address.family === 4 || address.bits <= 1n) return undefined
  const found = EMBEDDING_LIST.find(({ net }) => holds(net, address))
  if (found === undefined) return undefined
  const octets = octetsOf(address)
  const [a = 0, b = 0, c = 0, d = 0] = found.at.map(place => (octets[place] ?? 0) ^ (found.isInverted ? 0xff : 0))
  return v4(a, b, c, d)
}

const LOOPBACK = [netOf(v4(127, 0, 0, 0), 8), alone(v6(0, 0, 0, 0, 0, 0, 0, 1))]
const SPECIAL = [
  netOf(v4(0, 0, 0, 0), 8),
  netOf(v4(169, 254, 0, 0), 16),
  netOf(v4(224, 0, 0, 0), 4),
  netOf(v4(240, 0, 0, 0), 4),
  alone(v6()),
  netOf(v6(0xfe80), 10),
  netOf(v6(0xff00), 8),
]
const PRIVATE = [
  netOf(v4(10, 0, 0, 0), 8),
  netOf(v4(172, 16, 0, 0), 12),
  netOf(v4(192, 168, 0, 0), 16),
  netOf(v4(100, 64, 0, 0), 10),
  netOf(v6(0xfc00), 7),
]

export type Site = {
  readonly ipv6Prefix: 64 | 128
  readonly denyPrivate: boolean
  readonly neverGrant: readonly Net[]
  readonly proxies: readonly Net[]
  /** Addresses of the host. */
  readonly own: readonly Address[]
}

/** Errors that a test plants, to show that the comparison finds them. */
export const ORACLE_MUTANTS = [
  'a grant has no end',
  'a block has no end',
  'a block is no block',
  'a block leaves the IPv6 forms of the address open',
  'a login that is blocked keeps its grant',
  'an allowance has no end',
  'an ungrantable address can be allowed',
  'a grant is for the address alone',
  'a device has no end',
  'a device may be anywhere',
] as const
export type OracleMutant = (typeof ORACLE_MUTANTS)[number]

/**
 * The answer of a table for an address. `either`: the address may relay, but the table may omit it.
 */
export type Listed = 'yes' | 'no' | 'either'
/**
 * `view`: rows are whole networks. `bits`: a cdb that is searched bit by bit. `texts`: a cdb that
 * is searched by prefixes of texts.
 */
export type Table = 'view' | 'bits' | 'texts'

type Grant = { readonly row: Net; readonly at: number; readonly login: string; readonly from: Address }
type AdminRule = { readonly net: Net; readonly until: number }
type Device = { readonly networks: readonly Net[]; readonly hasEnded: boolean }

const EXP_TIME_S = 1800

export class RelayOracle {
  readonly #site: Site
  readonly #mutant: OracleMutant | undefined
  #grants: readonly Grant[] = []
  #blocks: readonly AdminRule[] = []
  #allowances: readonly AdminRule[] = []
  readonly #blockedLogins = new Map<string, number>()
  readonly #devices = new Map<string, Device>()

  constructor(site: Site, mutant?: OracleMutant) {
    this.#site = site
    this.#mutant = mutant
  }

  /** A login `ago` seconds ago that reaches the store now. */
  logIn(ip: Address, login: string, ago: number): void {
    if (this.#isUngrantable(ip) || this.#isDenied(ip) || this.#isBlocked(ip) || this.#isLoginBlocked(login)) return
    const row = this.#rowOf(ip)
    const known = this.#grants.find(grant => isSame(grant.row, row))
    if (known !== undefined && known.at > -ago) return
    this.#grants = [...this.#grants.filter(grant => grant !== known), { row, at: -ago, login: keyOf(login), from: ip }]
  }

  /** `until`: seconds from now, Infinity without end. A block deletes the grants that it covers. */
  block(net: Net, until: number): void {
    this.#blocks = [...this.#blocks.filter(each => !isSame(each.net, net)), { net, until }]
    if (this.#has('a block is no block')) return
    this.#grants = this.#grants.filter(({ row, from }) => {
      const four = embeddedIpv4(from)
      return !isWithin(row, net) && !(four !== undefined && holds(net, four))
    })
  }

  blockLogin(login: string, until: number): void {
    this.#blockedLogins.set(keyOf(login), until)
    if (this.#has('a login that is blocked keeps its grant')) return
    this.#grants = this.#grants.filter(grant => grant.login !== keyOf(login))
  }

  unblock(net: Net): void {
    this.#blocks = this.#blocks.filter(each => !isSame(each.net, net))
  }

  unblockLogin(login: string): void {
    this.#blockedLogins.delete(keyOf(login))
  }

  allow(net: Net, until: number): void {
    this.#allowances = [...this.#allowances.filter(each => !isSame(each.net, net)), { net, until }]
  }

  /** The rules of a login. */
  setDevice(login: string, device: Device): void {
    this.#devices.set(keyOf(login), device)
  }

  /** The correct answer for one address. */
  mayRelay(ip: Address): boolean {
    return this.#sourcesFor(ip).length > 0
  }

  /**
   * The correct answer of a table of networks. A table may omit only the addresses that it cannot
   * represent exactly.
   */
  listed(ip: Address, table: Table): Listed {
    const sources = this.#sourcesFor(ip)
    if (sources.length === 0) return 'no'
    return sources.some(source => this.#isSureOf(source, ip, table)) ? 'yes' : 'either'
  }

  /** The networks that open the relay for the address. */
  #sourcesFor(ip: Address): readonly { readonly net: Net; readonly grant?: Grant }[] {
    if (this.#isUngrantable(ip) || this.#isBlocked(ip)) return []
    const row = this.#rowOf(ip)
    const grants = this.#grants.filter(
      grant => isSame(grant.row, row) && !this.#isDenied(ip) && this.#counts(grant, ip),
    )
    const allowances = this.#allowances.filter(
      ({ net, until }) => holds(net, ip) && (until > 0 || this.#has('an allowance has no end')),
    )
    return [...grants.map(grant => ({ net: grant.row, grant })), ...allowances]
  }

  #isSureOf({ net, grant }: { readonly net: Net; readonly grant?: Grant }, ip: Address, table: Table): boolean {
    if (this.#blocks.some(block => block.until > 0 && overlap(block.net, net))) return false
    const networks = grant === undefined ? [] : (this.#devices.get(grant.login)?.networks ?? [])
    const four = embeddedIpv4(ip)
    if (networks.length > 0 && !networks.some(each => isWithin(net, each) || (four !== undefined && holds(each, four))))
      return false
    if (isSingle(net)) return true
    // A prefix cannot separate the IPv4 addresses that can be granted from the others.
    if ([LOCAL_TRANSLATION, ...EMBEDDING_LIST.map(each => each.net)].some(each => holds(each, ip))) return false
    const isCut = [...this.#ungrantable(), ...EMBEDDING_LIST.map(each => each.net)].some(each => overlap(each, net))
    if (table === 'view') return grant === undefined || !isCut
    if (table === 'bits' || ip.family === 4) return true
    // A prefix of an IPv6 text is found only if it ends between two groups and contains no "::".
    const groups = groupsOf(ip.bits).slice(0, net.length / 16)
    return !isCut && net.length % 16 === 0 && groups.every(group => group !== 0)
  }

  #counts({ at, login }: Grant, ip: Address): boolean {
    if (at + EXP_TIME_S <= 0 && !this.#has('a grant has no end')) return false
    if (this.#isLoginBlocked(login)) return false
    const device = this.#devices.get(login)
    if (device === undefined) return true
    if (device.hasEnded && !this.#has('a device has no end')) return false
    const four = embeddedIpv4(ip)
    return (
      device.networks.length === 0 ||
      this.#has('a device may be anywhere') ||
      device.networks.some(net => holds(net, ip) || (four !== undefined && holds(net, four)))
    )
  }

  /** The network that a login from the address opens. */
  #rowOf(ip: Address): Net {
    const isAlone =
      ip.family === 4 ||
      this.#site.ipv6Prefix === 128 ||
      this.#has('a grant is for the address alone') ||
      holds(LOCAL_TRANSLATION, ip) ||
      EMBEDDING_LIST.some(({ net }) => holds(net, ip) || (net.length > 64 && holds(netOf(net, 64), ip)))
    return isAlone ? alone(ip) : netOf(ip, 64)
  }

  #isBlocked(ip: Address): boolean {
    if (this.#has('a block is no block')) return false
    const four = embeddedIpv4(ip)
    return this.#blocks.some(
      ({ net, until }) =>
        (until > 0 || this.#has('a block has no end')) &&
        (holds(net, ip) ||
          (four !== undefined && holds(net, four) && !this.#has('a block leaves the IPv6 forms of the address open'))),
    )
  }

  #isLoginBlocked(login: string): boolean {
    if (this.#has('a login that is blocked keeps its grant')) return false
    return (this.#blockedLogins.get(keyOf(login)) ?? 0) > 0
  }

  #isUngrantable(ip: Address): boolean {
    if (this.#has('an ungrantable address can be allowed')) return false
    const four = embeddedIpv4(ip)
    return this.#ungrantable().some(net => holds(net, ip) || (four !== undefined && holds(net, four)))
  }

  #ungrantable(): readonly Net[] {
    const { neverGrant, proxies, own } = this.#site
    return [...LOOPBACK, ...SPECIAL, ...neverGrant, ...proxies, ...own.map(alone)]
  }

  /** A login does not open the relay for a private address; an allowance does. */
  #isDenied(ip: Address): boolean {
    const four = embeddedIpv4(ip)
    return this.#site.denyPrivate && PRIVATE.some(net => holds(net, ip) || (four !== undefined && holds(net, four)))
  }

  #has(mutant: OracleMutant): boolean {
    return this.#mutant === mutant
  }
}

const keyOf = (login: string): string => login.toLowerCase()
