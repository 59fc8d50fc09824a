/** Brings the schema of a database up to date, and reads its version. */
import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as v from 'valibot'
import type { Database, DatabaseSession } from './database.ts'
import { DatabaseUnavailable, MigrationFailed, OutcomeUnknown, SchemaTooNew } from './errors.ts'
import { ignored, type Statement } from './statement.ts'

export type Migration = { readonly version: number; readonly file: string; readonly text: string }

/** Result of `migrate`. */
export type Migrated = { readonly from: number; readonly to: number }

/** Roles and rights as they are after all migrations. */
const ROLES_FILE = 'roles.sql'
/** Any number that all releases agree on: only one program migrates a database at a time. */
const LOCK = 0x617574686c

const TAKE_LOCK: Statement<unknown> = { text: 'SELECT pg_advisory_xact_lock($1)', row: ignored }
/**
 * Reads the catalogue directly, because to_regclass answers from a cache that is not updated while
 * it waits for the lock.
 */
const HAS_LEDGER: Statement<{ there: boolean }> = {
  row: v.object({ there: v.boolean() }),
  text: `
SELECT count(*) > 0 AS there
FROM pg_class
WHERE relname = 'schema_version' AND relkind = 'r' AND pg_table_is_visible(oid)`,
}
const LEDGER: Statement<{ v: number }> = { text: 'TABLE schema_version', row: v.object({ v: v.number() }) }

/**
 * Brings the schema up to date: applies every numbered file of the directory that is not in the
 * ledger, each in one transaction. A file's first statement enters its number into
 * `schema_version`, so that two programs cannot both apply it, even if the lock fails. Safe when
 * many programs start at once.
 *
 * @throws SchemaTooNew if a newer program has migrated the database; MigrationFailed if a file is
 * refused, and then nothing of it stays.
 */
export async function migrate(database: Database, directory: string): Promise<Migrated> {
  const migrations = await readMigrations(directory)
  const known = migrations.at(-1)?.version ?? 0
  const from = await database.transaction(schemaVersion)
  if (from > known) throw new SchemaTooNew(from, known)
  for (const migration of migrations.slice(from)) await apply(database, migration)
  await repairRoles(database, directory)
  return { from, to: known }
}

/** True for the owner of the tables, who may give rights on them. */
const OWNS_TABLES: Statement<{ owns: boolean }> = {
  row: v.object({ owns: v.boolean() }),
  text: `
SELECT pg_has_role(current_user, relowner, 'USAGE') AS owns
FROM pg_class
WHERE oid = to_regclass('grants')`,
}

/**
 * A restored dump brings no roles: `roles.sql` makes the roles and rights that are missing. Only
 * the owner of the tables can. The file belongs to the newest schema, so a directory without its
 * last migrations has none.
 */
async function repairRoles(database: Database, directory: string): Promise<void> {
  const file = join(directory, ROLES_FILE)
  if (!existsSync(file)) return
  const text = await readFile(file, 'utf8')
  try {
    await database.transaction(async session => {
      await session.query(TAKE_LOCK, [LOCK])
      const { rows } = await session.query(OWNS_TABLES)
      if (rows[0]?.owns === true) await session.script(text)
    })
  } catch (error) {
    if (error instanceof DatabaseUnavailable || error instanceof OutcomeUnknown) throw error
    throw new MigrationFailed(ROLES_FILE, error)
  }
}

/** The numbered files, in order. Numbers begin at 1 and have no gap. */
export async function readMigrations(directory: string): Promise<readonly Migration[]> {
  const files = (await readdir(directory)).filter(file => /^\d{6}[\w-]*\.sql$/.test(file)).sort()
  const migrations = await Promise.all(
    files.map(async file => ({
      version: Number(file.slice(0, 6)),
      file,
      text: await readFile(join(directory, file), 'utf8'),
    })),
  )
  for (const [index, { version, file }] of migrations.entries()) {
    if (version !== index + 1) throw new TypeError(`${join(directory, file)}: expected number ${index + 1}`)
  }
  if (migrations.length === 0) throw new TypeError(`no migrations in ${directory}`)
  return migrations
}

async function apply(database: Database, migration: Migration): Promise<void> {
  try {
    await database.transaction(async session => {
      await session.query(TAKE_LOCK, [LOCK])
      // Another program may have applied it while this one waited for the lock.
      if ((await schemaVersion(session)) >= migration.version) return
      await session.script(migration.text)
    })
  } catch (error) {
    if (error instanceof DatabaseUnavailable || error instanceof OutcomeUnknown) throw error
    throw new MigrationFailed(migration.file, error)
  }
}

/** The highest migration that was applied to the database; 0 for an empty one. */
export async function schemaVersion(session: DatabaseSession): Promise<number> {
  const { rows } = await session.query(HAS_LEDGER)
  if (rows[0]?.there !== true) return 0
  const ledger = await session.query(LEDGER)
  return Math.max(0, ...ledger.rows.map(row => row.v))
}
