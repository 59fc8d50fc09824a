import { TemporaryFault, UsageFault } from '../daemon/exit-status.ts'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { openDatabase } from '../database/database.ts'
import { readMigrations, schemaVersion } from '../database/migrate.ts'
import { migrationsDirectory } from './migrations-directory.ts'

/**
 * Makes sure that a database answers, takes our role, and has the schema that this program knows.
 * @throws TemporaryFault if it cannot be reached, UsageFault if it must be migrated first.
 */
export async function checkSchema(connection: ConnectionOptions): Promise<void> {
  const where = connection.hosts.map(({ host, port }) => `${host}:${port}`).join(', ')
  const database = openDatabase({ ...connection, applicationName: 'auth-relay check', max: 1 })
  let found: number
  try {
    found = await schemaVersion(database)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    throw new TemporaryFault(
      `no database: ${why}: start PostgreSQL at ${where}, or change database.dbhost, dbname, dbuser or dbpass`,
      error,
    )
  } finally {
    await database.close()
  }
  const known = (await readMigrations(migrationsDirectory())).at(-1)?.version ?? 0
  if (found < known) throw new UsageFault(`the database has schema ${found}, we need ${known}: run auth-relay migrate`)
  if (found > known)
    throw new UsageFault(`the database has schema ${found}, we know ${known}: install a newer auth-relay`)
}
