import { TemporaryFault, UsageFault } from '../base/exit-status.ts'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { type Database, openDatabase } from '../database/database.ts'
import {
  DatabaseUnavailable,
  MigrationFailed,
  OutcomeUnknown,
  SchemaTooNew,
  StatementRefused,
} from '../database/errors.ts'

/**
 * Does something with a database and closes it.
 * @throws TemporaryFault if it cannot be reached, UsageFault if it refuses what we ask; each says what to do.
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

/**
 * The remedy for the reason that PostgreSQL or a pooler gives in its own words (English:
 * `lc_messages` of the server decides).
 */
function remedyFor(message: string, where: string, user: string): string {
  if (message.includes('unsupported startup parameter')) {
    return `set ignore_startup_parameters = statement_timeout in the pooler at ${where} and pool_mode = session, or connect to PostgreSQL directly`
  }
  if (/password authentication failed|no password supplied|role ".*" does not exist/.test(message)) {
    return `make the role ${user} and its password with auth-relay migrate --user postgres, or correct the password in the settings`
  }
  if (/database ".*" does not exist/.test(message)) {
    return 'make it with createdb, then run auth-relay migrate --user postgres'
  }
  if (message.includes('no pg_hba.conf entry')) return `let ${user} in: a line in pg_hba.conf of ${where}`
  return `start PostgreSQL at ${where}, or change database.dbhost, dbname, dbuser or dbpass`
}

/** Errors of the database room in an administrator's words; others are left as they are. */
function explain(error: unknown, { hosts, database, user }: ConnectionOptions): unknown {
  const where = hosts.map(({ host, port }) => (host.startsWith('/') ? host : `${host}:${port}`)).join(', ')
  if (error instanceof DatabaseUnavailable || error instanceof OutcomeUnknown) {
    return new TemporaryFault(`no database: ${error.message}: ${remedyFor(error.message, where, user)}`, error)
  }
  if (error instanceof StatementRefused) {
    if (error.code === '42P01')
      return new UsageFault(`the database ${database} has no tables of ours: run auth-relay migrate`, error)
    if (error.code === '42501') return new UsageFault(`role ${user} may not do this: ${error.message}`, error)
    return new TemporaryFault(`the database refused: ${error.message}`, error)
  }
  if (error instanceof SchemaTooNew || error instanceof MigrationFailed) return new UsageFault(error.message, error)
  return error
}
