/** The rules of a site about grants, made of its settings. */
import { networkInterfaces } from 'node:os'
import { CustomerNetworks } from '../wire/customer-networks.ts'
import { familyOf, formatNetwork, type IpAddress, type Network, type NetworkSet } from '../wire/ip-address.ts'
import { NeverList, type NeverListOptions, ownAddresses } from './never-list.ts'

export type GrantPolicyOptions = NeverListOptions & {
  /** Seconds that an address may relay after its last login. */
  readonly expTime: number
  /**
   * Seconds after which even a grant that is refreshed ends, and the next login begins a new one;
   * 0: never.
   */
  readonly maxLifetime: number
  /** 64: a login grants its customer's whole /64; the same at store and lookup. */
  readonly ipv6Prefix: number
  /** Keep login names. */
  readonly storeUser: boolean
}

/** The site's rules for grants: the same for store and lookup, so that they cannot differ. */
export class GrantPolicy {
  readonly expTime: number
  readonly maxLifetime: number
  readonly storeUser: boolean
  readonly neverList: NeverList
  readonly #ipv6Prefix: number
  readonly #customers: CustomerNetworks

  constructor(options: GrantPolicyOptions) {
    const { expTime, maxLifetime, ipv6Prefix } = options
    if (!(expTime >= 1) || !(maxLifetime >= 0)) throw new RangeError(`exp_time ${expTime}, max_lifetime ${maxLifetime}`)
    if (ipv6Prefix !== 64 && ipv6Prefix !== 128)
      throw new RangeError(`ipv6_prefix must be 64 or 128, not ${ipv6Prefix}`)
    this.expTime = expTime
    this.maxLifetime = maxLifetime
    this.storeUser = options.storeUser
    this.neverList = new NeverList(options)
    this.#ipv6Prefix = ipv6Prefix
    this.#customers = options.customers
  }

  /**
   * The text of the row for a login from this address: the address, or its /64. An address that
   * embeds an IPv4 address has a separate row, which is not the row of the IPv4 address. Each grant
   * opens only the path of its login.
   */
  rowOf(ip: IpAddress): string {
    if (this.#ipv6Prefix === 128 || familyOf(ip) === 4) return ip
    const network = this.#customers.grantedNetworkOf(ip)
    return network.prefixLength === 128 ? ip : formatNetwork(network)
  }

  /**
   * The IPv4 address that is embedded in the address: a block of it closes both. Undefined for all
   * others.
   */
  embeddedIpv4(ip: IpAddress): IpAddress | undefined {
    return this.#customers.embeddedIpv4(ip)
  }

  /**
   * Seconds after the last login of an address within which another login is not written. The value
   * is five, and less for short grants, so that a grant never ends more than a hundredth of its
   * life early.
   */
  get refreshSeconds(): number {
    return Math.min(5, this.expTime / 100)
  }
}

/** The settings that decide about grants. */
export type PolicySettings = {
  readonly grants: {
    readonly exp_time: number
    readonly max_lifetime: number
    readonly ipv6_prefix: number
    readonly nat64_prefixes: readonly Network[]
    readonly never_grant: NetworkSet
    readonly deny_private: boolean
    readonly grant_loopback: boolean
    readonly store_user: boolean
  }
  readonly popup: TrustOfPopup
  readonly wrap: { readonly proxy_trust: NetworkSet }
}

type TrustOfPopup = { readonly ssl_hack_trust: NetworkSet; readonly proxy_trust: NetworkSet }

/**
 * The policy of the settings. Every program makes its policy here, so that they agree about
 * grantable addresses. After a reload each program makes another one.
 */
export function policyOf(settings: PolicySettings): GrantPolicy {
  const { grants } = settings
  return new GrantPolicy({
    expTime: grants.exp_time,
    maxLifetime: grants.max_lifetime,
    ipv6Prefix: grants.ipv6_prefix,
    storeUser: grants.store_user,
    grantLoopback: grants.grant_loopback,
    denyPrivate: grants.deny_private,
    neverGrant: grants.never_grant,
    trusted: trustListsOf(settings),
    ownAddresses: ownAddresses(networkInterfaces, Date.now),
    customers: new CustomerNetworks(grants.nat64_prefixes),
  })
}

/** Every list of peers that may name other clients, by the name of its setting. */
export const trustListsOf = ({
  popup,
  wrap,
}: Pick<PolicySettings, 'popup' | 'wrap'>): Readonly<Record<string, NetworkSet>> => ({
  'popup.ssl_hack_trust': popup.ssl_hack_trust,
  'popup.proxy_trust': popup.proxy_trust,
  'wrap.proxy_trust': wrap.proxy_trust,
})
