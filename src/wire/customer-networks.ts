/** Customers as networks: the addresses that count together in limits and delays. */
import {
  addressBytes,
  familyOf,
  formatNetwork,
  type IpAddress,
  type Network,
  networkOf,
  parseNetwork,
  readAddress,
} from './ip-address.ts'

/** Lengths of a translator's prefix (RFC 6052 section 2.2). */
export const TRANSLATION_PREFIX_LENGTHS: readonly number[] = [32, 40, 48, 56, 64, 96]

/** Prefixes of addresses that embed an IPv4 address. Clients of every host may have them. */
const WELL_KNOWN = {
  /** RFC 6052: NAT64 and SIIT. */
  translation: '64:ff9b::/96',
  /** RFC 7915 and RFC 2765: IPv4-translated addresses. */
  translated: '::ffff:0:0:0/96',
  /** RFC 4291 section 2.5.5.1: IPv4-compatible addresses. */
  compatible: '::/96',
} as const

/** `at`: places of the octets of the IPv4 address. `mask` is XORed with each of them. */
type Embedding = {
  readonly prefix: Uint8Array
  readonly at: readonly [number, number, number, number]
  readonly mask: number
}

/**
 * Decides which addresses belong to one customer, for limits of connections, delays after failures,
 * and `ipv6_prefix = 64`.
 *
 * The network of a customer is an IPv4 address alone, or the /64 of an IPv6 address. An IPv6
 * address that embeds an IPv4 address belongs to the customer of the IPv4 address, because a
 * translator puts all of IPv4 into one /64. ISATAP (RFC 5214) does not count as embedding: each
 * host may choose an interface identifier of this form, and its /64 belongs to one site.
 */
export class CustomerNetworks {
  /** Networks whose addresses embed IPv4 addresses. */
  readonly embeddings: readonly Network[]
  readonly #embeddings: readonly Embedding[]
  /** In these networks each address counts as a separate customer. */
  readonly #alone: readonly Uint8Array[]

  /**
   * `sitePrefixes`: prefixes of the site's own translators, whose lengths are
   * TRANSLATION_PREFIX_LENGTHS.
   * @throws RangeError for another length.
   */
  constructor(sitePrefixes: readonly Network[] = []) {
    // Longest prefix first, because a site may use a part of a translator's prefix for another
    // translator.
    const translators = [...sitePrefixes, ...Object.values(WELL_KNOWN).map(networkFrom)].sort(
      (a, b) => b.prefixLength - a.prefixLength,
    )
    this.embeddings = [...translators, SIX_TO_FOUR, TEREDO, LOCAL_TRANSLATION]
    this.#embeddings = [...translators.map(translation), sixToFour, teredo]
    // An ordinary address may have the same /64 as a translator's prefix. A grant for that /64
    // would open the relay for all of IPv4. Within a prefix of 64 bits or less every address embeds
    // an IPv4 address.
    this.#alone = [prefixBytes(LOCAL_TRANSLATION), ...translators.map(({ base }) => prefixBytes(networkOf(base, 64)))]
  }

  /** The IPv4 address from which the IPv6 address was made; undefined for all others. */
  embeddedIpv4(ip: IpAddress): IpAddress | undefined {
    return familyOf(ip) === 4 ? undefined : this.#embedded(ip, addressBytes(ip))
  }

  /**
   * The network of the customer with this address. It contains the address, or is the IPv4 address
   * that the address embeds.
   */
  networkOf(ip: IpAddress): Network {
    if (familyOf(ip) === 4) return { base: ip, prefixLength: 32 }
    const bytes = addressBytes(ip)
    const embedded = this.#embedded(ip, bytes)
    if (embedded !== undefined) return { base: embedded, prefixLength: 32 }
    if (this.#alone.some(prefix => beginsWith(bytes, prefix))) return { base: ip, prefixLength: 128 }
    return networkOf(ip, 64)
  }

  /** Text of the customer's network, for use as a key. */
  keyOf(ip: IpAddress): string {
    return formatCustomer(this.networkOf(ip))
  }

  /**
   * The network to grant with `ipv6_prefix = 64`: that of the customer, but the address alone if it
   * embeds an IPv4 address.
   */
  grantedNetworkOf(ip: IpAddress): Network {
    if (familyOf(ip) === 4) return { base: ip, prefixLength: 32 }
    const network = this.networkOf(ip)
    return familyOf(network.base) === 6 ? network : { base: ip, prefixLength: 128 }
  }

  #embedded(ip: IpAddress, bytes: Uint8Array): IpAddress | undefined {
    // The unspecified and the loopback address look like IPv4-compatible ones.
    if (ip === '::' || ip === '::1') return undefined
    const found = this.#embeddings.find(({ prefix }) => beginsWith(bytes, prefix))
    if (found === undefined) return undefined
    return readAddress(Uint8Array.from(found.at, index => (bytes[index] ?? 0) ^ found.mask))
  }
}

const formatCustomer = (network: Network): string =>
  familyOf(network.base) === 4 ? network.base : formatNetwork(network)

function networkFrom(text: string): Network {
  const network = parseNetwork(text)
  if (network === undefined) throw new TypeError(`not a network: ${text}`)
  return network
}

/** The octets of the prefix, whose length is a multiple of 8. */
const prefixBytes = ({ base, prefixLength }: Network): Uint8Array => addressBytes(base).subarray(0, prefixLength / 8)

/** RFC 6052 section 2.2: the IPv4 address follows the prefix, without the use of bits 64 to 71. */
function translation(network: Network): Embedding {
  const { base, prefixLength } = network
  if (familyOf(base) !== 6 || !TRANSLATION_PREFIX_LENGTHS.includes(prefixLength)) {
    throw new RangeError(`a translator's prefix cannot be ${formatNetwork(network)}`)
  }
  const start = prefixLength / 8
  const octet = (n: number): number => (start <= 8 && start + n >= 8 ? start + n + 1 : start + n)
  return { prefix: prefixBytes(network), at: [octet(0), octet(1), octet(2), octet(3)], mask: 0 }
}

/**
 * RFC 8215: translators of one site. The site chooses the length of the prefix, so only the setting
 * `nat64_prefixes` gives the place of the IPv4 address.
 */
const LOCAL_TRANSLATION = networkFrom('64:ff9b:1::/48')

/** RFC 3056: the site's IPv4 address follows the prefix. */
const SIX_TO_FOUR = networkFrom('2002::/16')
const sixToFour: Embedding = { prefix: prefixBytes(SIX_TO_FOUR), at: [2, 3, 4, 5], mask: 0 }

/**
 * RFC 4380 section 4: the last four octets are the client's IPv4 address with every bit inverted.
 */
const TEREDO = networkFrom('2001::/32')
const teredo: Embedding = { prefix: prefixBytes(TEREDO), at: [12, 13, 14, 15], mask: 0xff }

function beginsWith(bytes: Uint8Array, prefix: Uint8Array): boolean {
  for (let n = 0; n < prefix.length; n += 1) if (bytes[n] !== prefix[n]) return false
  return true
}
