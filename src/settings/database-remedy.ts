/** The remedy of the administrator for a database that cannot be used. */

import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import type { DatabaseConnection } from './database-connection.ts'

/**
 * The command of the Debian package that makes or migrates the database in the PostgreSQL of its
 * host.
 */
export const PACKAGED_SETUP = '/usr/sbin/auth-relay-setup-database'

/**
 * The command that makes or migrates tables and roles: that of the Debian package for a server of
 * this host, else `byHand`.
 */
export function setupCommand(hosts: DatabaseConnection['hosts'], byHand: string, packaged = PACKAGED_SETUP): string {
  const [server, ...others] = hosts
  const isHere = server !== undefined && others.length === 0 && /^(localhost$|\/)/.test(server.host)
  return isHere && existsSync(packaged) ? basename(packaged) : byHand
}

/** The parts of a failed connection that decide the remedy. */
export type ConnectionFailure = {
  readonly message: string
  /**
   * The SQLSTATE of the server, and the function of PostgreSQL that refused. Both are the same for
   * every `lc_messages`.
   */
  readonly refusal: { readonly code: string; readonly routine: string | undefined } | undefined
}

/** The remedy for a database that refuses the connection, or that does not answer. */
export function databaseRemedy(
  { message, refusal }: ConnectionFailure,
  { hosts, user }: Pick<DatabaseConnection, 'hosts' | 'user'>,
): string {
  const where = hosts.map(({ host, port }) => (host.startsWith('/') ? host : `${host}:${port}`)).join(', ')
  const makeRole = `make the role ${user} and its password with ${setupCommand(hosts, 'auth-relay migrate --user postgres')}, or correct the password in the settings`
  switch (refusal?.code ?? '') {
    case '28P01': // invalid_password
      return makeRole
    case '3D000': // invalid_catalog_name
      return setupCommand(hosts, 'create it with createdb, then run auth-relay migrate --user postgres')
    case '28000': // invalid_authorization_specification
      if (refusal?.routine === 'InitializeSessionUserId') return makeRole
      return refusal?.routine === 'auth_failed'
        ? `run the command as root or as the account ${user}, or give the password of ${user}`
        : `admit ${user} by a line in pg_hba.conf of ${where}`
  }
  // Two texts are English on every host: that of this program, and that of its client library.
  if (message.includes('pool_mode'))
    return `set pool_mode = session in the pooler at ${where}, or connect to PostgreSQL directly`
  if (message.includes('client password must be')) {
    return `write the password of ${user} into the settings, or name it with --password-file; auth-relay migrate as root on the host of PostgreSQL needs none, because it uses the Unix socket`
  }
  return `start PostgreSQL at ${where}, or change database.dbhost, dbname, dbuser or dbpass`
}
