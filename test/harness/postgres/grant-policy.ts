import { GrantPolicy, type GrantPolicyOptions } from '../../../src/grants/grant-policy.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { NetworkSet } from '../../../src/wire/ip-address.ts'

/** The default policy of a site, except for the named values. No address belongs to the host. */
export const grantPolicy = (options: Partial<GrantPolicyOptions> = {}): GrantPolicy =>
  new GrantPolicy({
    expTime: 1800,
    maxLifetime: 0,
    ipv6Prefix: 128,
    storeUser: true,
    grantLoopback: false,
    denyPrivate: false,
    neverGrant: new NetworkSet([]),
    trusted: {},
    ownAddresses: () => new Set(),
    customers: new CustomerNetworks(),
    ...options,
  })
