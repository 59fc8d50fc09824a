/** The verb that brings the database up to date, and its wait for a database that starts. */
import { existsSync, readdirSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { systemClock } from '../../base/clock.ts'
import { TemporaryFault, UsageFault } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import type { ConnectionOptions } from '../../database/connection-options.ts'
import { migrate as applyMigrations, type Migrated, schemaVersion } from '../../database/migrate.ts'
import { ROLES, setRolePassword } from '../../grants/database-setup.ts'
import { dropPrivileges, hasAccount, idsOf, isRoot } from '../../process/privileges.ts'
import { type DatabaseRole, databaseConnection } from '../../settings/database-connection.ts'
import { readSecretFile } from '../../settings/secret.ts'
import { loadSettingsFile, SETTINGS_FILE, type Settings } from '../../settings/settings.ts'
import { readPeriod } from '../grant-target.ts'
import { DATABASE_ROLES, knownSchema, migrationsDirectory, withAnyRole, withDatabase } from '../site-database.ts'
import { lockDirectory } from '../stack/directory-lock.ts'
import { partsInUse } from '../stack/plan.ts'
import { startDatabase } from '../stack/up-database.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; user?: string; passwordFile?: string; wait?: string; check?: true; json?: true }

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
    .option('--check', 'change nothing: compare the schema of the database with that of this version')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  runuser -u postgres -- createdb pop3authd && auth-relay migrate --user postgres
  auth-relay migrate --user postgres --password-file postgres.pass
  auth-relay migrate --user postgres --wait 5m
  psql -d pop3authd -f sql/pop3authd.sql       the same; then set the passwords
  auth-relay migrate --check && systemctl restart auth-relay

Without --password-file root connects to a database of this host through its Unix socket,
as the account named by --user.
The embedded database is brought up to date by auth-relay up at every start.
--check needs the password of one role of this host. Exit status of --check: 0 if the
programs of this version can use the database, or if no program of this host needs it;
1 if the schema is older; 111 if the database is unreachable.`,
    )
    .action((options: Options) => {
      const waitSeconds = readPeriod(options.wait, '--wait') ?? 0
      choose({
        kind: 'command',
        run: async () => {
          const { settings } = loadSettingsFile(resolve(options.config), environment)
          if (options.check === true) return compareSchema(settings, waitSeconds, options, print)
          const { from, to } = settings.database.embedded
            ? await migrateEmbedded(settings)
            : await retried(waitSeconds, serverMigration(settings, options))
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

/** `migrate --check`. Returns the exit status. */
async function compareSchema(
  settings: Settings,
  waitSeconds: number,
  { json }: Options,
  print: (text: string) => void,
): Promise<number> {
  const { gate, authd, statusPage, alerts } = partsInUse(settings)
  const isUsed = settings.top.configured && (gate || authd || statusPage || alerts)
  if (!isUsed || settings.database.embedded) {
    const reason = isUsed ? 'auth-relay up brings the embedded database up to date' : 'no program of this host needs it'
    print(json === true ? '{}\n' : `The schema was not compared: ${reason}.\n`)
    return 0
  }
  const known = await knownSchema()
  const { result: found } = await retried(waitSeconds, () => withAnyRole(settings, DATABASE_ROLES, schemaVersion))
  if (json === true) print(`${JSON.stringify({ from: found, to: known })}\n`)
  else print(`The database has schema ${found}, this version ${found < known ? 'needs' : 'knows'} ${known}.\n`)
  return found < known ? 1 : 0
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

/**
 * Prepares the migration of a database server. The result makes one attempt. It reads the secrets
 * now, because an attempt may change to the account of the owner.
 */
function serverMigration(settings: Settings, { user, passwordFile }: Options): () => Promise<Migrated> {
  const writer = databaseConnection(settings, 'writer')
  const password = passwordFile === undefined ? undefined : readSecretFile(passwordFile)
  let owner = user === undefined ? writer : { ...writer, user, password }
  const roles = user === undefined ? [] : DATABASE_ROLES.map(role => rolePassword(settings, role))
  const directory = migrationsDirectory()
  return () => {
    if (user !== undefined && password === undefined) owner = throughSocket(owner, directory)
    return withDatabase(owner, async database => {
      const migrated = await applyMigrations(database, directory)
      for (const { role, name, secret } of roles) {
        if (secret === undefined) continue
        if (name !== ROLES[role]) {
          throw new UsageFault(
            `the tables belong to the roles ${Object.values(ROLES).join(', ')}: set the password of ${name} yourself`,
          )
        }
        await setRolePassword(database, ROLES[role], secret.reveal())
      }
      return migrated
    })
  }
}

function rolePassword(settings: Settings, role: DatabaseRole) {
  const { user: name, password: secret } = databaseConnection(settings, role)
  return { role, name, secret }
}

/** The directory of the server's Unix socket on Debian and on most other systems. */
const SOCKET_DIRECTORY = '/var/run/postgresql'

/**
 * The connection of an owner without a password. PostgreSQL admits the account of the same name
 * through the Unix socket of its host, and over TCP it demands a password. Root changes to that
 * account and cannot return. Unchanged if the server is elsewhere, or if this process cannot have
 * the account.
 */
function throughSocket<T extends ConnectionOptions>(owner: T, directory: string): T {
  const [server, ...others] = owner.hosts
  if (server === undefined || others.length > 0 || !/^(localhost$|127\.0\.0\.1$|::1$|\/)/.test(server.host))
    return owner
  const host = server.host.startsWith('/') ? server.host : SOCKET_DIRECTORY
  if (!existsSync(join(host, `.s.PGSQL.${server.port}`)) || !hasAccount(owner.user)) return owner
  const ids = idsOf(owner.user, '--user')
  if (isRoot()) {
    dropPrivileges(ids)
    try {
      readdirSync(directory)
    } catch (error) {
      throw new UsageFault(
        `the account ${owner.user} cannot read ${directory}: make it readable, or name the password of ${owner.user} with --password-file`,
        error,
      )
    }
  }
  return process.geteuid?.() === ids.uid ? { ...owner, hosts: [{ host, port: server.port }] } : owner
}
