import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { UsageFault } from '../base/exit-status.ts'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { readMigrations, schemaVersion } from '../database/migrate.ts'
import { withDatabase } from './with-database.ts'

/**
 * Where the numbered SQL files are, seen from our own program file: beside `dist/`, or beside `src/`.
 * @throws UsageFault if the installation has none.
 */
export function migrationsDirectory(running = process.argv[1] ?? ''): string {
  const above = dirname(dirname(running))
  const found = [join(above, 'sql'), join(dirname(above), 'sql')].find(directory => existsSync(directory))
  if (found !== undefined) return found
  throw new UsageFault(`${above} has no directory sql: install auth-relay again`)
}

/**
 * Makes sure that a database answers, takes our role, and has the schema that this program knows.
 * @throws TemporaryFault if it cannot be reached, UsageFault if it must be migrated first.
 */
export async function checkSchema(connection: ConnectionOptions): Promise<number> {
  const found = await withDatabase(connection, schemaVersion)
  const known = await knownSchema()
  if (found < known) throw new UsageFault(`the database has schema ${found}, we need ${known}: run auth-relay migrate`)
  if (found > known)
    throw new UsageFault(`the database has schema ${found}, we know ${known}: install a newer auth-relay`)
  return found
}

/** The schema that this program makes and understands. */
export const knownSchema = async (): Promise<number> =>
  (await readMigrations(migrationsDirectory())).at(-1)?.version ?? 0
