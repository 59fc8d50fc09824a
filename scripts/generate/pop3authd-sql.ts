import { readFileSync, writeFileSync } from 'node:fs'
import { type Migration, readMigrations } from '../../src/database/migrate.ts'

const DIRECTORY = new URL('../../sql/', import.meta.url)
const TARGET = new URL('pop3authd.sql', DIRECTORY)

const HEAD = `-- The whole schema of auth-relay. An administrator can set up an empty database with it:
--   createdb pop3authd && psql -d pop3authd -f pop3authd.sql
-- Generated from the numbered files of this directory by scripts/generate/pop3authd-sql.ts. A database
-- that was made from this file is up to date.
\\set ON_ERROR_STOP on
`

/** All migrations in one file for psql, each in its own transaction. */
export const pop3authdSql = (migrations: readonly Migration[]): string =>
  HEAD + migrations.map(({ file, text }) => `\n-- ${file}\nBEGIN;\n${text.trimEnd()}\nCOMMIT;\n`).join('')

if (import.meta.main) {
  const made = pop3authdSql(await readMigrations(DIRECTORY.pathname))
  if (!process.argv.includes('--check')) writeFileSync(TARGET, made)
  else if (readFileSync(TARGET, 'utf8') !== made) {
    console.error('sql/pop3authd.sql does not match the migrations: run node scripts/generate/pop3authd-sql.ts')
    process.exitCode = 1
  }
}
