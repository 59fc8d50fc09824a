import { TemporaryFault, UsageFault } from '../daemon/exit-status.ts'
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

/** Errors of the database room in an administrator's words; others are left as they are. */
function explain(error: unknown, { hosts, database, user }: ConnectionOptions): unknown {
  const where = hosts.map(({ host, port }) => (host.startsWith('/') ? host : `${host}:${port}`)).join(', ')
  if (error instanceof DatabaseUnavailable || error instanceof OutcomeUnknown) {
    return new TemporaryFault(
      `no database: ${error.message}: start PostgreSQL at ${where}, or change database.dbhost, dbname, dbuser or dbpass`,
      error,
    )
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
