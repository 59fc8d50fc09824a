import { openDatabase } from '../../src/database/database.ts'
import { startEmbeddedServer } from '../../src/database/embedded-server.ts'
import { migrate } from '../../src/database/migrate.ts'
import { testServerAccount } from './server-account.ts'
import { temporaryDirectory } from './temporary-directory.ts'

/** Address of the PostgreSQL of this test run; `inject('postgres')` in a test. */
export type PostgresForTests = {
  /** Directory of its Unix socket. */
  readonly host: string
  readonly port: number
  /** Superuser. */
  readonly user: string
  readonly password: string
  /** A migrated database, the template of all databases of tests. */
  readonly template: string
}

declare module 'vitest' {
  interface ProvidedContext {
    postgres: PostgresForTests
  }
}

const TEMPLATE = 'template_of_tests'
/** Tests cause hundreds of warnings on purpose; only errors matter. */
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: console.error }

/** Starts one embedded PostgreSQL for the whole run; returns the function that stops it. */
export default async function setup(project: { provide(key: 'postgres', value: PostgresForTests): void }) {
  const directory = temporaryDirectory()
  const server = await startEmbeddedServer({
    stateDir: directory.path,
    log: quiet,
    account: testServerAccount,
    // Tests connect under various accounts.
    socketDirectoryMode: 0o755,
    // No data must survive a power failure.
    settings: { fsync: 'off', max_connections: '200' },
  })
  const { connection } = server
  const first = openDatabase({ ...connection, applicationName: 'tests', max: 1 })
  await first.script(`CREATE DATABASE ${TEMPLATE}`)
  await first.close()
  const template = openDatabase({ ...connection, database: TEMPLATE, applicationName: 'tests', max: 1 })
  await migrate(template, new URL('../../sql/', import.meta.url).pathname)
  // Roles belong to the whole server. The password of each role is its name.
  for (const role of ['pop3authd', 'authwrap', 'authstatus'])
    await template.script(`ALTER ROLE ${role} PASSWORD '${role}'`)
  await template.close()
  const [host] = connection.hosts
  if (host === undefined) throw new Error('an embedded server without an address')
  project.provide('postgres', {
    ...host,
    user: connection.user,
    password: connection.password?.reveal() ?? '',
    template: TEMPLATE,
  })
  return async () => {
    await server.stop()
    directory.remove()
  }
}
