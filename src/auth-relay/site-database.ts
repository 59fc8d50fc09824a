/**
 * The site's database for a verb: connection, schema check, grants, and the remedy for each fault.
 */

import { existsSync } from 'node:fs'
import { userInfo } from 'node:os'
import { dirname, join } from 'node:path'
import { TemporaryFault, UsageFault } from '../base/errors.ts'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { type Database, openDatabase } from '../database/database.ts'
import {
  DatabaseUnavailable,
  MigrationFailed,
  OutcomeUnknown,
  SchemaTooNew,
  StatementRefused,
} from '../database/errors.ts'
import { readMigrations, schemaVersion } from '../database/migrate.ts'
import { createGrantAdmin } from '../grants/grant-admin.ts'
import { policyOf } from '../grants/grant-policy.ts'
import type { GrantAdmin } from '../grants/grant-store.ts'
import { type DatabaseRole, databaseConnection, passwordFileOf } from '../settings/database-connection.ts'
import { databaseRemedy, setupCommand } from '../settings/database-remedy.ts'
import { loadSettingsFile, type Settings } from '../settings/settings.ts'
import type { Surroundings } from './verb.ts'

/**
 * Does something with a database and closes it. @throws TemporaryFault if the database cannot be
 * reached, UsageFault if it refuses a statement; both name the remedy.
 */
export async function withDatabase<T>(
  connection: ConnectionOptions,
  work: (database: Database) => Promise<T>,
): Promise<T> {
  const database = openDatabase({ ...connection, applicationName: 'auth-relay', max: 2 })
  try {
    return await work(database)
  } catch (error) {
    throw explain(error, connection)
  } finally {
    await database.close()
  }
}

/** The roles whose password a host may have. The first reads most. */
export const DATABASE_ROLES: readonly DatabaseRole[] = ['status', 'writer', 'reader']

/**
 * Does something with the site's database under the first of these roles that it admits. `refused`
 * has the reason of each role before it. @throws the fault of the last role if none is admitted.
 */
export async function withAnyRole<T>(
  settings: Settings,
  roles: readonly DatabaseRole[],
  work: (database: Database, role: DatabaseRole, user: string) => Promise<T>,
): Promise<{ readonly result: T; readonly refused: ReadonlyMap<DatabaseRole, string> }> {
  const refused = new Map<DatabaseRole, string>()
  let last: unknown = new TypeError('no role')
  for (const role of roles) {
    try {
      const connection = databaseConnection(settings, role)
      const result = await withDatabase(connection, database => work(database, role, connection.user))
      return { result, refused }
    } catch (error) {
      if (!(error instanceof UsageFault || error instanceof TemporaryFault)) throw error
      refused.set(role, error.message)
      last = error
    }
  }
  throw last
}

/** Errors of the database room in an administrator's words; others are left as they are. */
function explain(error: unknown, connection: ConnectionOptions): unknown {
  const { hosts, database, user } = connection
  if (error instanceof OutcomeUnknown) {
    return new TemporaryFault(
      {
        fact: `the outcome is unknown, and a failover may lose the change, even if it is visible now: ${error.message}`,
        remedy: 'repeat the command until it ends with status 0',
      },
      error,
    )
  }
  if (error instanceof DatabaseUnavailable) {
    const remedy = databaseRemedy(error, connection)
    return new TemporaryFault({ fact: `no database: ${error.message}`, remedy }, error)
  }
  if (error instanceof StatementRefused) {
    if (error.code === '42P01')
      return new UsageFault(
        {
          fact: `the database ${database} has no tables of auth-relay`,
          remedy: `run ${setupCommand(hosts, 'auth-relay migrate')}`,
        },
        error,
      )
    if (error.code === '42501') {
      const remedy = setupCommand(hosts, 'auth-relay migrate --user postgres')
      return new UsageFault({ fact: `role ${user} may not do this: ${error.message}`, remedy }, error)
    }
    // A value of another type, a missing value, a CHECK: the same command would fail again.
    if (/^(22|235(02|14))/.test(error.code))
      return new UsageFault(`the database refused a value: ${error.message}`, error)
    return new TemporaryFault(`the database refused: ${error.message}`, error)
  }
  if (error instanceof SchemaTooNew || error instanceof MigrationFailed) return new UsageFault(error.message, error)
  return error
}

/**
 * The directory of the numbered SQL files: beside `dist/` or `src/` of the running program.
 * @throws UsageFault if the installation has none.
 */
export function migrationsDirectory(running = process.argv[1] ?? ''): string {
  const above = dirname(dirname(running))
  const found = [join(above, 'sql'), join(dirname(above), 'sql')].find(directory => existsSync(directory))
  if (found !== undefined) return found
  throw new UsageFault(`${above} has no directory sql: install auth-relay again`)
}

/**
 * Makes sure that a database answers, accepts the role, and has the schema of this program. @throws
 * TemporaryFault if it cannot be reached, UsageFault if it must be migrated first.
 */
export async function checkSchema(connection: ConnectionOptions): Promise<number> {
  const found = await withDatabase(connection, schemaVersion)
  const known = await knownSchema()
  if (found < known) {
    const command = setupCommand(connection.hosts, 'auth-relay migrate')
    throw new UsageFault({
      fact: `the database has schema ${found}, auth-relay needs ${known}`,
      remedy: `run ${command}`,
    })
  }
  if (found > known)
    throw new UsageFault({
      fact: `the database has schema ${found}, auth-relay knows ${known}`,
      remedy: 'install a newer auth-relay',
    })
  return found
}

/** The schema that this program makes and understands. */
export const knownSchema = async (): Promise<number> =>
  (await readMigrations(migrationsDirectory())).at(-1)?.version ?? 0

/**
 * The operator's name for the history: the account behind sudo, the account, or its number if it
 * has no name.
 */
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
 * The connection of a command, with authd's role, because the gate's role may not read the data
 * that commands show.
 * @throws UsageFault, also on a host that has only the gate's password.
 */
export function commandConnection(settings: Settings): ConnectionOptions {
  const { dbuser, wrap_dbuser, wrap_dbpass } = settings.database
  const [writer, reader] = [passwordFileOf(settings, 'writer'), passwordFileOf(settings, 'reader')]
  const isOfGate = wrap_dbpass !== '' || (reader !== '' && existsSync(reader))
  if (writer !== '' && !existsSync(writer) && isOfGate) {
    throw new UsageFault({
      fact: `this host has the password of ${wrap_dbuser} alone, and commands need that of ${dbuser}`,
      remedy: `run the command on a host where authd runs, or write ${writer}`,
    })
  }
  return databaseConnection(settings, 'writer')
}

/**
 * Does something with the grants of the site of this settings file. @throws UsageFault or
 * TemporaryFault, with the remedy.
 */
export const withGrants = <T>(
  config: string,
  surroundings: Pick<Surroundings, 'environment'>,
  work: (admin: GrantAdmin, settings: Settings) => Promise<T>,
): Promise<T> =>
  withSiteDatabase(config, surroundings, (database, settings) =>
    work(createGrantAdmin(database, policyOf(settings)), settings),
  )

/** The same for the database itself, with the role that writes. */
export function withSiteDatabase<T>(
  config: string,
  { environment }: Pick<Surroundings, 'environment'>,
  work: (database: Database, settings: Settings) => Promise<T>,
): Promise<T> {
  const { settings } = loadSettingsFile(config, environment)
  return withDatabase(commandConnection(settings), database => work(database, settings))
}
