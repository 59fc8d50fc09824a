import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { UsageFault } from '../exit-status.ts'
import { readSecretFile, Secret } from '../secret.ts'
import type { Settings } from './settings.ts'

/** Where the database is and who asks: the form that src/database and src/grants take. */
export type DatabaseAccess = {
  readonly hosts: readonly { readonly host: string; readonly port: number }[]
  readonly database: string
  readonly user: string
  readonly password: Secret | undefined
  readonly tls: { readonly ca?: string } | undefined
}

/** The role that writes (authd's), or the one that only reads (the gate's). */
export type DatabaseRole = 'writer' | 'reader'

/** Files of the embedded database below state_dir. */
export const EMBEDDED_FILES = {
  /** The directory of its Unix socket, one line. */
  socket: 'database-socket',
  /** Passwords of the two roles. */
  writer: 'dbpass',
  reader: 'wrap-dbpass',
} as const

/**
 * How to reach the database that the settings name, the embedded one included. Reads secret files: call it before privileges are dropped.
 * @throws UsageFault if a password is missing, or the embedded database does not run.
 */
export function databaseAccess(settings: Settings, role: DatabaseRole): DatabaseAccess {
  const { dbname, dbuser, wrap_dbuser, embedded, dbtls, dbtls_ca, dbport, dbhost } = settings.database
  const user = role === 'writer' ? dbuser : wrap_dbuser
  if (embedded) {
    const { state_dir } = settings.top
    const password = readSecretFile(join(state_dir, EMBEDDED_FILES[role]))
    const hosts = [{ host: socketDirectory(state_dir), port: 5432 }]
    return { hosts, database: dbname, user, password, tls: undefined }
  }
  const hosts = dbhost
    .split(',')
    .map(host => host.trim())
    .filter(host => host !== '')
    .map(host => ({ host, port: dbport }))
  if (hosts.length === 0) throw new UsageFault('database.dbhost is empty: name the server, or set embedded = true')
  const tls = dbtls === 'off' ? undefined : dbtls_ca === '' ? {} : { ca: readFileSync(dbtls_ca, 'utf8') }
  return { hosts, database: dbname, user, password: passwordOf(settings, role), tls }
}

/** Undefined: the server asks for none (peer or trust authentication). */
function passwordOf({ database }: Settings, role: DatabaseRole): Secret | undefined {
  const [text, file] =
    role === 'writer' ? [database.dbpass, database.dbpass_file] : [database.wrap_dbpass, database.wrap_dbpass_file]
  if (file !== '') return readSecretFile(file)
  return text === '' ? undefined : new Secret(text)
}

function socketDirectory(stateDir: string): string {
  try {
    return readFileSync(join(stateDir, EMBEDDED_FILES.socket), 'utf8').trim()
  } catch (error) {
    throw new UsageFault(
      `the embedded database of ${stateDir} does not run: start it with auth-relay up, as the account that you are now`,
      error,
    )
  }
}
