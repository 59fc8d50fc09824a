import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { UsageFault } from '../daemon/exit-status.ts'
import { readSecretFile, Secret } from '../daemon/secret.ts'
import type { Settings } from '../daemon/settings/settings.ts'
import type { ConnectionOptions } from '../database/connection-options.ts'

/** Files of the embedded database below state_dir. */
export const EMBEDDED = {
  /** The directory of its Unix socket, one line. */
  socket: 'database-socket',
  /** Passwords of the two roles. */
  writer: 'dbpass',
  reader: 'wrap-dbpass',
} as const

/** The role that writes (authd's), or the one that only reads (the gate's). */
export type DatabaseRole = 'writer' | 'reader'

/**
 * How to reach the database that the settings name, the embedded one included.
 * @throws UsageFault if a password is missing, or the embedded database does not run.
 */
export function connectionFor(settings: Settings, role: DatabaseRole): ConnectionOptions {
  const { dbname, dbuser, wrap_dbuser, embedded, dbtls, dbtls_ca } = settings.database
  const user = role === 'writer' ? dbuser : wrap_dbuser
  if (embedded) {
    const { state_dir } = settings.top
    return {
      hosts: [{ host: socketDirectory(state_dir), port: 5432 }],
      database: dbname,
      user,
      password: readSecretFile(join(state_dir, EMBEDDED[role])),
    }
  }
  const { dbport } = settings.database
  const hosts = settings.database.dbhost
    .split(',')
    .map(host => host.trim())
    .filter(host => host !== '')
    .map(host => ({ host, port: dbport }))
  if (hosts.length === 0) throw new UsageFault('database.dbhost is empty: name the server, or set embedded = true')
  const tls = dbtls === 'off' ? undefined : dbtls_ca === '' ? {} : { ca: readFileSync(dbtls_ca, 'utf8') }
  return { hosts, database: dbname, user, password: passwordFor(settings, role), tls }
}

/** The password of a role as the settings have it. Undefined: the server asks for none (peer or trust authentication). */
export function passwordFor({ database }: Settings, role: DatabaseRole): Secret | undefined {
  const [text, file] =
    role === 'writer' ? [database.dbpass, database.dbpass_file] : [database.wrap_dbpass, database.wrap_dbpass_file]
  if (file !== '') return readSecretFile(file)
  return text === '' ? undefined : new Secret(text)
}

function socketDirectory(stateDir: string): string {
  try {
    return readFileSync(join(stateDir, EMBEDDED.socket), 'utf8').trim()
  } catch (error) {
    throw new UsageFault(
      `the embedded database of ${stateDir} does not run: start it with auth-relay up, as the account that you are now`,
      error,
    )
  }
}
