/** Addresses that are never granted, and the addresses of this host. */
import type { NetworkInterfaceInfo } from 'node:os'
import type { CustomerNetworks } from '../wire/customer-networks.ts'
import {
  familyOf,
  formatNetwork,
  type IpAddress,
  isSingleAddress,
  LOOPBACK,
  NEVER_GRANTED,
  type Network,
  NetworkDifference,
  type NetworkSet,
  networkContains,
  PRIVATE_NETWORKS,
  parseIpAddress,
} from '../wire/ip-address.ts'
import type { GrantRefusal } from './grant-store.ts'

/**
 * The host's own addresses, loopback apart, read again when they are older than `maxAgeMs`:
 * addresses come and go. `interfaces` is os.networkInterfaces, `clock` gives milliseconds.
 */
export function ownAddresses(
  interfaces: () => NodeJS.Dict<NetworkInterfaceInfo[]>,
  clock: () => number,
  maxAgeMs = 2000,
): () => ReadonlySet<IpAddress> {
  let known: ReadonlySet<IpAddress> = new Set()
  let readAt = Number.NEGATIVE_INFINITY
  return () => {
    const now = clock()
    // A clock that was set back also makes the list outdated.
    if (now - readAt >= maxAgeMs || now < readAt) {
      known = addressesOf(interfaces())
      readAt = now
    }
    return known
  }
}

function addressesOf(interfaces: NodeJS.Dict<NetworkInterfaceInfo[]>): ReadonlySet<IpAddress> {
  const found = new Set<IpAddress>()
  for (const { address } of Object.values(interfaces).flatMap(list => list ?? [])) {
    const ip = parseIpAddress(address)
    if (ip !== undefined && !LOOPBACK.has(ip)) found.add(ip)
  }
  return found
}

export type NeverListOptions = {
  /**
   * UNSAFE, for demonstration and tests. Loopback in `neverGrant` is never granted nevertheless.
   */
  readonly grantLoopback: boolean
  /** Private and carrier-grade NAT addresses get no grant by login. */
  readonly denyPrivate: boolean
  /**
   * Gateways and webmail hosts, from which many people log in. No other option permits a grant for
   * an address of these.
   */
  readonly neverGrant: NetworkSet
  /**
   * Peers that name other clients, by the name of the setting that lists them. Loopback in them
   * counts as loopback. A proxy's address does not identify the clients behind the proxy.
   */
  readonly trusted: Readonly<Record<string, NetworkSet>>
  /** The host's current addresses; see ownAddresses. */
  readonly ownAddresses: () => ReadonlySet<IpAddress>
  readonly customers: CustomerNetworks
}

/** Why an address is ungrantable. */
export type Ungrantable = Exclude<GrantRefusal, 'blocked' | 'private'>

/**
 * Decides whether an address can be granted at all, before any table is queried
 * (spec/wrap-and-db.md §4). The answer for an address that embeds an IPv4 address is that of the
 * IPv4 address as well, so that a second way to the same host opens nothing.
 */
export class NeverList {
  readonly #options: NeverListOptions
  readonly #trusted: readonly (readonly [setting: string, peers: NetworkSet])[]

  constructor(options: NeverListOptions) {
    this.#options = options
    this.#trusted = Object.entries(options.trusted)
  }

  /** Why the address can never be granted; undefined if it can. */
  refusal(ip: IpAddress): Ungrantable | undefined {
    return this.#check(ip).reason
  }

  /**
   * The same for a grant by login, which private addresses may be denied; the administrator may
   * still allow them by name.
   */
  loginRefusal(ip: IpAddress): Exclude<GrantRefusal, 'blocked'> | undefined {
    return this.refusal(ip) ?? (this.isDeniedPrivate(ip) ? 'private' : undefined)
  }

  /**
   * The reason in words, with the name of the setting, for the administrator; undefined if a login
   * can be granted from there.
   */
  describe(ip: IpAddress): string | undefined {
    const { reason, detail, address } = this.#check(ip)
    const via = address === ip ? '' : ` (for the IPv4 address ${address} in it)`
    if (reason !== undefined) return `${detail}${via}`
    return this.isDeniedPrivate(ip) ? 'private: grants.deny_private is set' : undefined
  }

  /**
   * Why a network cannot be allowed. Either it is inside networks that are never granted, so that
   * an allowance would have no effect. Or it is so wide that it holds loopback, multicast and the
   * like. Own addresses and proxies inside it are not a reason, because each address is checked at
   * lookup.
   */
  networkRefusal(network: Network): Ungrantable | undefined {
    const isWithin = (outer: Network): boolean => isPartOf(network, outer)
    const isAround = (inner: Network): boolean => network.prefixLength < inner.prefixLength && isPartOf(inner, network)
    if (LOOPBACK.networks.some(isAround)) return 'loopback'
    if (NEVER_GRANTED.networks.some(isAround)) return 'never'
    const isLoopback = LOOPBACK.networks.some(isWithin)
    if (isLoopback && !this.#options.grantLoopback) return 'loopback'
    if ([...NEVER_GRANTED.networks, ...this.#options.neverGrant.networks].some(isWithin)) return 'never'
    if (isLoopback) return undefined
    if (Object.values(this.#options.trusted).some(({ networks }) => networks.some(isWithin))) return 'proxy'
    return isSingleAddress(network) ? this.refusal(network.base) : undefined
  }

  /**
   * The parts of a network that are never granted, to show when the network is allowed. Parts that
   * are the whole network are not among them: see networkRefusal.
   */
  exceptionsIn(network: Network): readonly Network[] {
    return this.#ungrantable().filter(part => part.prefixLength > network.prefixLength && isPartOf(part, network))
  }

  /**
   * Returns the parts of a network in which every address can be granted, for tables of mail
   * servers that do not query each address. Addresses that embed an IPv4 address are left out,
   * unless the network is one address, because a prefix does not show which of the IPv4 addresses
   * can be granted. Own addresses are the current ones.
   */
  grantableParts(): (network: Network) => readonly Network[] {
    const difference = new NetworkDifference([...this.#ungrantable(), ...this.#options.customers.embeddings])
    return network =>
      isSingleAddress(network) ? (this.refusal(network.base) === undefined ? [network] : []) : difference.of(network)
  }

  /**
   * The ungrantable networks for a mail server that queries the database directly. `alone`:
   * addresses in the network embed IPv4 addresses, so that only a single one of them can be
   * granted.
   */
  published(): readonly { readonly network: Network; readonly alone: boolean }[] {
    const listed = new Map(
      this.#options.customers.embeddings.map(network => [formatNetwork(network), { network, alone: true }]),
    )
    for (const network of this.#ungrantable()) listed.set(formatNetwork(network), { network, alone: false })
    return [...listed.values()]
  }

  #ungrantable(): readonly Network[] {
    const { neverGrant, trusted, ownAddresses, grantLoopback } = this.#options
    // Loopback in a trust list counts as loopback, and is therefore not named a second time.
    const isProxy = (network: Network): boolean => !LOOPBACK.networks.some(loopback => isPartOf(network, loopback))
    return [
      ...(grantLoopback ? [] : LOOPBACK.networks),
      ...NEVER_GRANTED.networks,
      ...neverGrant.networks,
      ...Object.values(trusted).flatMap(({ networks }) => networks.filter(isProxy)),
      ...[...ownAddresses()].map(base => ({ base, prefixLength: familyOf(base) === 4 ? 32 : 128 })),
    ]
  }

  /** True if no login opens the relay for the address because it is private. */
  isDeniedPrivate(ip: IpAddress): boolean {
    if (!this.#options.denyPrivate) return false
    const embedded = this.#options.customers.embeddedIpv4(ip)
    return PRIVATE_NETWORKS.has(ip) || (embedded !== undefined && PRIVATE_NETWORKS.has(embedded))
  }

  #check(ip: IpAddress): Check {
    const check = this.#checkAlone(ip)
    if (check.reason !== undefined) return check
    const embedded = this.#options.customers.embeddedIpv4(ip)
    return embedded === undefined ? check : this.#checkAlone(embedded)
  }

  #checkAlone(ip: IpAddress): Check {
    const { grantLoopback, neverGrant, ownAddresses } = this.#options
    const because = (reason: Ungrantable, detail: string): Check => ({ reason, detail, address: ip })
    const grantable: Check = { reason: undefined, detail: undefined, address: ip }
    const isLoopback = LOOPBACK.has(ip)
    if (isLoopback && !grantLoopback) return because('loopback', 'loopback')
    if (NEVER_GRANTED.has(ip)) return because('never', 'link-local, multicast, unspecified or reserved')
    if (neverGrant.has(ip)) return because('never', 'listed in grants.never_grant')
    if (isLoopback) return grantable
    for (const [setting, peers] of this.#trusted) {
      if (peers.has(ip)) return because('proxy', `listed in ${setting}: a proxy, which speaks for other clients`)
    }
    return ownAddresses().has(ip) ? because('own', 'an address of this host') : grantable
  }
}

/**
 * `address`: the address that was checked, which is the address itself or the IPv4 address in it.
 */
type Check =
  | { readonly reason: Ungrantable; readonly detail: string; readonly address: IpAddress }
  | { readonly reason: undefined; readonly detail: undefined; readonly address: IpAddress }

const isPartOf = (inner: Network, outer: Network): boolean =>
  outer.prefixLength <= inner.prefixLength && networkContains(outer, inner.base)
