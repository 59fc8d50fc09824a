/** The parameters with which the programs reach the database, by the settings. */
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errorCodeOf, type Fault, messageOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { readSecretFile, Secret } from './secret.ts'
import type { Settings } from './settings.ts'

/** Files of the embedded database below state_dir. */
export const EMBEDDED_FILES = {
  /** Contains one line: the directory of the server's Unix socket. */
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
  /** Undefined without database.require_sync. `standbyAgeMs` 0: no limit. */
  readonly cluster?: { readonly standbyAgeMs: number } | undefined
}

/**
 * Returns the parameters for the database of the settings, which can be the embedded one.
 * @throws UsageFault if a password or dbhost is missing, TemporaryFault if the embedded database
 * does not run.
 */
export function databaseConnection({ database, top }: Settings, role: DatabaseRole): DatabaseConnection {
  const { user, text } = credentials(database)[role]
  const file = passwordFileOf({ database, top }, role)
  if (database.embedded) {
    // Look for the socket first. Before the first start of the server the passwords are missing
    // too, and the error must name the server that does not run.
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
  if (hosts.length === 0) {
    throw new UsageFault({ fact: 'database.dbhost is empty', remedy: 'name the server, or set embedded = true' })
  }
  // Without a password the server must require none: peer or trust authentication.
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
  if (!database.embedded) return []
  const directory = statSync(socketOf(top.state_dir), { throwIfNoEntry: false })
  if (directory === undefined) throw new TemporaryFault(notRunning(top.state_dir))
  return [directory.gid]
}

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
      ? new TemporaryFault(notRunning(stateDir), error)
      : new UsageFault(
          { fact: `the embedded database of ${stateDir} is not for this account`, remedy: 'use the one that runs it' },
          error,
        )
  }
}

const notRunning = (stateDir: string): Fault => ({
  fact: `the embedded database of ${stateDir} does not run`,
  remedy: 'start it with auth-relay up',
})

function readCertificates(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    throw new UsageFault(
      {
        setting: 'database.dbtls_ca',
        fact: `cannot read ${path}: ${messageOf(error)}`,
        remedy: 'name the file with the certificates of the authorities',
      },
      error,
    )
  }
}
