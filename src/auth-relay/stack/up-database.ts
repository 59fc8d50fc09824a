/**
 * The database of the stack at its start: embedded or of the site, with schema, roles and
 * passwords.
 */

import { readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { TemporaryFault, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { Database } from '../../database/database.ts'
import { startEmbeddedServer } from '../../database/embedded-server.ts'
import { EmbeddedServerFault } from '../../database/errors.ts'
import { type Migrated, migrate } from '../../database/migrate.ts'
import { ensureDatabase, ROLES, type RoleName, reserveForWriter, setRolePassword } from '../../grants/database-setup.ts'
import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import { databaseConnection, EMBEDDED_FILES } from '../../settings/database-connection.ts'
import type { Settings } from '../../settings/settings.ts'
import { ensureSecretFile } from '../secrets.ts'
import { checkSchema, migrationsDirectory, withDatabase } from '../site-database.ts'

/** The database of the stack: embedded, or the server of the site. */
export type UpDatabase = {
  /** Schema before and after. */
  readonly migrated: Migrated
  /** Stops the embedded server. */
  stop(): Promise<void>
}

/**
 * Starts the embedded PostgreSQL and migrates it, or checks that the server of the site is
 * reachable and migrated.
 * @throws TemporaryFault or UsageFault, with the remedy; the embedded server does not run then.
 */
export async function startDatabase(settings: Settings, log: Log): Promise<UpDatabase> {
  if (settings.database.embedded) return startOurs(settings, log)
  const schema = await checkSchema(databaseConnection(settings, 'reader'))
  return { migrated: { from: schema, to: schema }, stop: async () => {} }
}

async function startOurs(settings: Settings, log: Log): Promise<UpDatabase> {
  const { dbname, dbuser, wrap_dbuser, status_dbuser } = settings.database
  if (dbuser !== ROLES.writer || wrap_dbuser !== ROLES.reader || status_dbuser !== ROLES.status) {
    throw new UsageFault(
      `database.embedded: its roles are ${Object.values(ROLES).join(', ')}: leave dbuser, wrap_dbuser and status_dbuser at their defaults`,
    )
  }
  const stateDir = settings.top.state_dir
  const account = embeddedAccount(settings)
  const server = await startEmbeddedServer({ stateDir, log, account }).catch((error: unknown) => {
    // A message of PostgreSQL may have several lines. A fault has one line.
    throw error instanceof EmbeddedServerFault
      ? new TemporaryFault(error.message.trim().replaceAll(/\s*\n\s*/g, '; '), error)
      : error
  })
  const socket = join(stateDir, EMBEDDED_FILES.socket)
  const stop = async (): Promise<void> => {
    rmSync(socket, { force: true })
    await server.stop()
  }
  try {
    for (const role of EVERY_ROLE) ensureSecretFile(join(stateDir, EMBEDDED_FILES[role]))
    const { connection } = server
    await withDatabase(connection, database => ensureDatabase(database, dbname))
    const migrated = await withDatabase({ ...connection, database: dbname }, async database => {
      const { from, to } = await migrate(database, migrationsDirectory())
      if (from !== to) log.info('schema_migrated', { from, to })
      for (const role of EVERY_ROLE) await setPassword(database, ROLES[role], join(stateDir, EMBEDDED_FILES[role]))
      await reserveForWriter(database)
      return { from, to }
    })
    const directory = connection.hosts[0]?.host ?? ''
    writeFileSync(socket, `${directory}\n`)
    log.info('database_started', { directory, pid: server.pid })
    return { migrated, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

/** The uid with which the kernel shows accounts of other user namespaces (user_namespaces(7)). */
const NOBODY = 65_534

/**
 * The account of the embedded server; undefined without root, when the server runs under the
 * account of this process.
 * @throws UsageFault if another program of auth-relay has the account, because that program could
 * read the superuser's files and the grants.
 */
export function embeddedAccount({
  database,
  popup,
  sslwrap,
  authd,
  wrap,
  statusPage,
  alerts,
}: Settings): Ids | undefined {
  if (!isRoot()) return undefined
  const ids = idsOf(database.embedded_user, 'database.embedded_user')
  const others = [
    ['authd.user', authd.user],
    ['popup.login_user', popup.login_user],
    ['sslwrap.user', sslwrap.user],
    ['wrap.user', wrap.user],
    ['wrap.smtpd_user', wrap.smtpd_user],
    ['status-page.user', statusPage.user],
    ['alerts.user', alerts.user],
  ] as const
  if (ids.uid === NOBODY || ids.uid === uidOf('nobody') || ids.uid === 0) {
    throw new UsageFault(
      `database.embedded_user must not be ${database.embedded_user}: name an account that nothing else uses (useradd --system auth-relay-db)`,
    )
  }
  for (const [setting, account] of others) {
    if (uidOf(account) === ids.uid) {
      throw new UsageFault(
        `database.embedded_user and ${setting} are one account: give PostgreSQL its own account (useradd --system auth-relay-db)`,
      )
    }
  }
  return ids
}

/**
 * Undefined for an account that the host does not have. The program that needs the account reports
 * it.
 */
function uidOf(account: string): number | undefined {
  try {
    return account === '' ? undefined : idsOf(account, '').uid
  } catch (error) {
    if (error instanceof UsageFault) return undefined
    throw error
  }
}

const EVERY_ROLE = ['writer', 'reader', 'status'] as const

async function setPassword(database: Database, role: RoleName, file: string): Promise<void> {
  await setRolePassword(database, role, readFileSync(file, 'utf8').trim())
}
