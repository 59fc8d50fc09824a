import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errorCodeOf, messageOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { readSecretFile, Secret } from './secret.ts'
import type { Settings } from './settings.ts'

/** Files of the embedded database below state_dir. */
export const EMBEDDED_FILES = {
  /** The directory of its Unix socket, one line. */
  socket: 'database-socket',
  /** Passwords of the roles. */
  writer: 'dbpass',
  reader: 'wrap-dbpass',
  status: 'status-dbpass',
} as const

/** The role that writes (authd's), the one that only reads (the gate's), or the status page's. */
export type DatabaseRole = 'writer' | 'reader' | 'status'

/** Parameters for src/database to connect. */
export type DatabaseConnection = {
  readonly hosts: readonly { readonly host: string; readonly port: number }[]
  readonly database: string
  readonly user: string
  readonly password?: Secret | undefined
  readonly tls?: { readonly ca?: string } | undefined
  /** Set with database.require_sync. */
  readonly cluster?: { readonly standbyAgeMs: number } | undefined
}

/**
 * How to reach the database that the settings name, the embedded one included.
 * @throws UsageFault if a password is missing, TemporaryFault if the embedded database does not
 * run.
 */
export function databaseConnection({ database, top }: Settings, role: DatabaseRole): DatabaseConnection {
  const { user, text } = credentials(database)[role]
  const file = passwordFileOf({ database, top }, role)
  if (database.embedded) {
    // First whether it runs: before its first start there are no passwords either.
    const hosts = [{ host: socketOf(top.state_dir), port: 5432 }]
    return {
      hosts,
      database: database.dbname,
      user,
      password: readSecretFile(file),
    }
  }
  const hosts = database.dbhost
    .split(',')
    .map(host => host.trim())
    .filter(host => host !== '')
    .map(host => ({ host, port: database.dbport }))
  if (hosts.length === 0) throw new UsageFault('database.dbhost is empty: name the server, or set embedded = true')
  // Without a password the server must ask for none: peer or trust authentication.
  const password = file !== '' ? readSecretFile(file) : text === '' ? undefined : new Secret(text)
  const { dbtls, dbtls_ca } = database
  const tls = dbtls === 'off' ? undefined : dbtls_ca === '' ? {} : { ca: readCertificates(dbtls_ca) }
  const cluster = database.require_sync ? { standbyAgeMs: database.standby_age * 1000 } : undefined
  return { hosts, database: database.dbname, user, password, tls, cluster }
}

/** The secret file with the role's password; empty if there is none. */
export function passwordFileOf({ database, top }: Pick<Settings, 'database' | 'top'>, role: DatabaseRole): string {
  return database.embedded ? join(top.state_dir, EMBEDDED_FILES[role]) : credentials(database)[role].file
}

/**
 * Supplementary groups that a program needs to reach the database after it drops root: the group of
 * the embedded server's socket directory, which is closed to other accounts. Empty for a server of
 * the site.
 * @throws TemporaryFault if the embedded database does not run.
 */
export function databaseGroups({ database, top }: Settings): readonly number[] {
  return database.embedded ? [statSync(socketOf(top.state_dir)).gid] : []
}

/** The settings of each role. */
const credentials = (database: Settings['database']) => ({
  writer: { user: database.dbuser, text: database.dbpass, file: database.dbpass_file },
  reader: { user: database.wrap_dbuser, text: database.wrap_dbpass, file: database.wrap_dbpass_file },
  status: { user: database.status_dbuser, text: database.status_dbpass, file: database.status_dbpass_file },
})

function socketOf(stateDir: string): string {
  try {
    return readFileSync(join(stateDir, EMBEDDED_FILES.socket), 'utf8').trim()
  } catch (error) {
    const isMissing = errorCodeOf(error) === 'ENOENT'
    throw isMissing
      ? new TemporaryFault(`the embedded database of ${stateDir} does not run: start it with auth-relay up`, error)
      : new UsageFault(`the embedded database of ${stateDir} is not for this account: use the one that runs it`, error)
  }
}

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageFault(`cannot read database.dbtls_ca ${path}: ${messageOf(error)}`, error)
  }
}
