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

/**
 * The remedy for an error that PostgreSQL or a pooler reports only by its text. The text is English
 * unless `lc_messages` of the server is set.
 */
export function databaseRemedy(message: string, { hosts, user }: Pick<DatabaseConnection, 'hosts' | 'user'>): string {
  const where = hosts.map(({ host, port }) => (host.startsWith('/') ? host : `${host}:${port}`)).join(', ')
  if (message.includes('pool_mode'))
    return `set pool_mode = session in the pooler at ${where}, or connect to PostgreSQL directly`
  if (/password authentication failed|no password supplied|role ".*" does not exist/.test(message)) {
    return `make the role ${user} and its password with ${setupCommand(hosts, 'auth-relay migrate --user postgres')}, or correct the password in the settings`
  }
  if (/database ".*" does not exist/.test(message)) {
    return setupCommand(hosts, 'make it with createdb, then run auth-relay migrate --user postgres')
  }
  if (message.includes('client password must be')) {
    return `write the password of ${user} into the settings, or name it with --password-file; auth-relay migrate as root on the host of PostgreSQL needs none, because it uses the Unix socket`
  }
  if (/(peer|ident) authentication failed/i.test(message)) {
    return `run the command as root or as the account ${user}, or give the password of ${user}`
  }
  if (message.includes('no pg_hba.conf entry')) return `admit ${user} by a line in pg_hba.conf of ${where}`
  return `start PostgreSQL at ${where}, or change database.dbhost, dbname, dbuser or dbpass`
}
