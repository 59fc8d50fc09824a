import { databaseConnection } from '../daemon/database-connection.ts'
import { loadSettingsFile, type Settings } from '../daemon/settings/settings.ts'
import { createGrantAdmin } from '../grants/grant-admin.ts'
import type { GrantAdmin } from '../grants/grant-store.ts'
import { policyOf } from '../grants/policy-of.ts'
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
    work(createGrantAdmin(database, policyOf(settings)), settings),
  )
}
