import { networkInterfaces } from 'node:os'
import { CustomerNetworks } from '../wire/customer-networks.ts'
import type { Network, NetworkSet } from '../wire/ip-address.ts'
import { GrantPolicy } from './grant-policy.ts'
import { ownAddresses } from './never-list.ts'

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
 * The policy that the settings demand. Every program makes its policy here, so that they cannot
 * differ in what they take for
 * grantable; after a reload each makes another one.
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
    neverNets: grants.never_grant,
    trusted: trustListsOf(settings),
    ownAddresses: ownAddresses(networkInterfaces, Date.now),
    customers: new CustomerNetworks(grants.nat64_prefixes),
  })
}

/** Every list of peers that may speak for other clients, by the name of its setting. */
export const trustListsOf = ({
  popup,
  wrap,
}: Pick<PolicySettings, 'popup' | 'wrap'>): Readonly<Record<string, NetworkSet>> => ({
  'popup.ssl_hack_trust': popup.ssl_hack_trust,
  'popup.proxy_trust': popup.proxy_trust,
  'wrap.proxy_trust': wrap.proxy_trust,
})
