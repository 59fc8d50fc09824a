import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TemporaryFault } from '../daemon/exit-status.ts'
import type { Log } from '../daemon/log.ts'
import type { Settings } from '../daemon/settings/settings.ts'
import type { Database } from '../database/database.ts'
import { startEmbeddedServer } from '../database/embedded-server.ts'
import { EmbeddedServerFault } from '../database/errors.ts'
import { type Migrated, migrate } from '../database/migrate.ts'
import { DATABASE_NAME, ensureDatabase, ROLES, type RoleName, setRolePassword } from '../grants/database-setup.ts'
import { connectionFor, EMBEDDED } from './database-connection.ts'
import { migrationsDirectory } from './migrations-directory.ts'
import { checkSchema } from './schema-check.ts'
import { ensureSecretFile } from './secret-file.ts'
import { withDatabase } from './with-database.ts'

/** The database of the stack, ours or the site's. */
export type UpDatabase = {
  /** What tells the programs where it is, when the settings do not. */
  readonly environment: Readonly<Record<string, string>>
  /** Schema before and after. */
  readonly migrated: Migrated
  /** Stops it, if it is ours. */
  stop(): Promise<void>
}

/**
 * Starts the embedded PostgreSQL and brings it up to date, or makes sure that the site's own server is there and up to date.
 * @throws TemporaryFault or UsageFault, with what to do; nothing of ours runs then.
 */
export async function startDatabase(settings: Settings, log: Log): Promise<UpDatabase> {
  if (settings.database.embedded) return startOurs(settings.top.state_dir, log)
  const schema = await checkSchema(connectionFor(settings, 'reader'))
  return { environment: {}, migrated: { from: schema, to: schema }, stop: async () => {} }
}

async function startOurs(stateDir: string, log: Log): Promise<UpDatabase> {
  const server = await startEmbeddedServer({ stateDir, log }).catch((error: unknown) => {
    throw error instanceof EmbeddedServerFault ? new TemporaryFault(error.message, error) : error
  })
  const socket = join(stateDir, EMBEDDED.socket)
  const stop = async (): Promise<void> => {
    rmSync(socket, { force: true })
    await server.stop()
  }
  try {
    const writer = join(stateDir, EMBEDDED.writer)
    const reader = join(stateDir, EMBEDDED.reader)
    ensureSecretFile(writer)
    ensureSecretFile(reader)
    const { connection } = server
    await withDatabase(connection, database => ensureDatabase(database, DATABASE_NAME))
    const migrated = await withDatabase({ ...connection, database: DATABASE_NAME }, async database => {
      const { from, to } = await migrate(database, migrationsDirectory())
      if (from !== to) log.info('migrated', { from, to })
      await setPassword(database, ROLES.writer, writer)
      await setPassword(database, ROLES.reader, reader)
      return { from, to }
    })
    const directory = connection.hosts[0]?.host ?? ''
    writeFileSync(socket, `${directory}\n`)
    log.info('database', { directory, pid: server.pid })
    return {
      environment: {
        DBHOST: directory,
        DBPORT: String(connection.hosts[0]?.port ?? 5432),
        DBNAME: DATABASE_NAME,
        DBUSER: ROLES.writer,
        DBPASS_FILE: writer,
        WRAP_DBUSER: ROLES.reader,
        WRAP_DBPASS_FILE: reader,
        DBTLS: 'off',
      },
      migrated,
      stop,
    }
  } catch (error) {
    await stop()
    throw error
  }
}

async function setPassword(database: Database, role: RoleName, file: string): Promise<void> {
  await setRolePassword(database, role, readFileSync(file, 'utf8').trim())
}
