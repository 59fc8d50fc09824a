/** The verb that brings the database up to date, and its wait for a database that starts. */
import { resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { systemClock } from '../../base/clock.ts'
import { TemporaryFault, UsageFault } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import { migrate as applyMigrations } from '../../database/migrate.ts'
import { ROLES, setRolePassword } from '../../grants/database-setup.ts'
import { type DatabaseRole, databaseConnection } from '../../settings/database-connection.ts'
import { readSecretFile } from '../../settings/secret.ts'
import { loadSettingsFile, SETTINGS_FILE, type Settings } from '../../settings/settings.ts'
import { readPeriod } from '../grant-target.ts'
import { migrationsDirectory, withDatabase } from '../site-database.ts'
import { lockDirectory } from '../stack/directory-lock.ts'
import { startDatabase } from '../stack/up-database.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; user?: string; passwordFile?: string; wait?: string; json?: true }

const RETRY_MS = 500

/** `auth-relay migrate`: brings the tables of the database up to date. */
export const migrate: Verb = (program, { environment, print }, choose) => {
  program
    .command('migrate')
    .description('bring the tables of the database up to date and set the passwords of its roles')
    .option('--config <file>', 'settings file', SETTINGS_FILE)
    .option('--user <role>', 'role that owns the database; without it dbuser')
    .option('--password-file <file>', 'file with the password of that role, mode 0600')
    .option('--wait <time>', 'how long to try again while the database cannot be reached: 90s, 5m')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  createdb pop3authd && auth-relay migrate --user postgres
  auth-relay migrate --user postgres --wait 5m
  psql -d pop3authd -f sql/pop3authd.sql       the same; then set the passwords

The embedded database is brought up to date by auth-relay up at every start.`,
    )
    .action((options: Options) => {
      const waitSeconds = readPeriod(options.wait, '--wait') ?? 0
      choose({
        type: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          const { from, to } = settings.database.embedded
            ? await migrateEmbedded(settings)
            : await retried(waitSeconds, () => migrateServer(settings, options))
          if (options.json === true) print(`${JSON.stringify({ from, to })}\n`)
          else
            print(
              from === to ? `The database is up to date (schema ${to}).\n` : `Migrated from schema ${from} to ${to}.\n`,
            )
          return 0
        },
      })
    })
}

/** Tries again after a temporary fault until the time is over. The last fault is thrown. */
async function retried<T>(seconds: number, work: () => Promise<T>): Promise<T> {
  const end = systemClock() + seconds * 1000
  for (;;) {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof TemporaryFault) || systemClock() >= end) throw error
    }
    await pause(RETRY_MS)
  }
}

async function migrateEmbedded(settings: Settings): Promise<{ from: number; to: number }> {
  const lock = lockDirectory(settings.top.state_dir)
  try {
    const database = await startDatabase(settings, createLog('auth-relay', { level: 'warn' }))
    await database.stop()
    return database.migrated
  } finally {
    await lock.stop()
  }
}

async function migrateServer(settings: Settings, { user, passwordFile }: Options) {
  const connection = databaseConnection(settings, 'writer')
  const owner =
    user === undefined
      ? connection
      : { ...connection, user, password: passwordFile === undefined ? undefined : readSecretFile(passwordFile) }
  return withDatabase(owner, async database => {
    const migrated = await applyMigrations(database, migrationsDirectory())
    for (const role of ['writer', 'reader', 'status'] as const) await setPassword(role)
    return migrated

    async function setPassword(role: DatabaseRole): Promise<void> {
      const { password, user: name } = databaseConnection(settings, role)
      if (user === undefined || password === undefined) return
      if (name !== ROLES[role]) {
        throw new UsageFault(
          `the tables belong to the roles ${Object.values(ROLES).join(', ')}: set the password of ${name} yourself`,
        )
      }
      await setRolePassword(database, ROLES[role], password.reveal())
    }
  })
}
