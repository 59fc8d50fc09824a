import { networkInterfaces } from 'node:os'
import { systemClock } from '../daemon/clock.ts'
import { databaseConnection } from '../daemon/database-connection.ts'
import { loadSettingsFile, type Settings } from '../daemon/settings/settings.ts'
import { createGrantAdmin } from '../grants/grant-admin.ts'
import { GrantPolicy } from '../grants/grant-policy.ts'
import type { GrantAdmin } from '../grants/grant-store.ts'
import { ownAddresses } from '../grants/own-addresses.ts'
import type { Surroundings } from './verb.ts'
import { withDatabase } from './with-database.ts'

/**
 * Does something with the grants of the site whose settings file this is.
 * @throws UsageFault or TemporaryFault, with what to do.
 */
export function withGrants<T>(
  config: string,
  { environment }: Pick<Surroundings, 'environment'>,
  work: (admin: GrantAdmin, settings: Settings) => Promise<T>,
): Promise<T> {
  const { settings } = loadSettingsFile(config, environment)
  return withDatabase(databaseConnection(settings, 'writer'), database =>
    work(createGrantAdmin(database, policyFor(settings)), settings),
  )
}

/** The same policy as authd's and the gate's. */
export function policyFor({ grants }: Settings): GrantPolicy {
  return new GrantPolicy({
    expTime: grants.exp_time,
    maxLifetime: grants.max_lifetime,
    ipv6Prefix: grants.ipv6_prefix,
    storeUser: grants.store_user,
    grantLoopback: grants.grant_loopback,
    denyPrivate: grants.deny_private,
    neverNets: grants.never_nets,
    ownAddresses: ownAddresses(networkInterfaces, systemClock),
  })
}
