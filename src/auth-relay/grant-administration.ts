import { userInfo } from 'node:os'
import { createGrantAdmin } from '../grants/grant-admin.ts'
import type { GrantAdmin } from '../grants/grant-store.ts'
import { policyOf } from '../grants/policy-of.ts'
import { databaseConnection } from '../settings/database-connection.ts'
import { loadSettingsFile, type Settings } from '../settings/settings.ts'
import type { Surroundings } from './verb.ts'
import { withDatabase } from './with-database.ts'

/** Who gives this order, for the history: the account behind sudo, the account, or its number where it has no name. */
export function operatorName(environment: Readonly<Record<string, string | undefined>>): string {
  const behind = environment['SUDO_USER']
  if (behind !== undefined && behind !== '') return behind
  try {
    return userInfo().username
  } catch {
    return `uid ${process.getuid?.() ?? '?'}` // an account without a name, as containers have them
  }
}

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
