import { openDatabase } from '../../../src/database/database.ts'
import { startEmbeddedServer } from '../../../src/database/embedded-server.ts'
import { migrate } from '../../../src/database/migrate.ts'
import { ensureDatabase, ROLES, setRolePassword } from '../../../src/grants/database-setup.ts'
import { temporaryDirectory } from '../temporary-directory.ts'
import { copyCluster } from './embedded-cluster.ts'
import { testServerAccount } from './server-account.ts'

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
  /** Directory of a migrated cluster that no server uses, for copies. */
  readonly cluster: string
}

declare module 'vitest' {
  interface ProvidedContext {
    postgres: PostgresForTests
  }
}

const TEMPLATE = 'template_of_tests'
/** The default of database.dbname. */
const DATABASE = 'pop3authd'
/** Tests cause hundreds of warnings on purpose; only errors matter. */
const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: console.error }

const SERVER = {
  log: quiet,
  account: testServerAccount,
  // Tests connect under various accounts.
  socketDirectoryMode: 0o755,
  // No data must survive a power failure, and no database lives long enough for a vacuum.
  settings: { fsync: 'off', full_page_writes: 'off', autovacuum: 'off', max_connections: '200' },
}

/** Makes a cluster with the migrated database of auth-relay in a state directory. */
async function makeCluster(stateDir: string): Promise<void> {
  const server = await startEmbeddedServer({ ...SERVER, stateDir })
  const options = { ...server.connection, applicationName: 'tests', max: 1 }
  const first = openDatabase(options)
  await ensureDatabase(first, DATABASE)
  await first.close()
  const database = openDatabase({ ...options, database: DATABASE })
  await migrate(database, new URL('../../../sql/', import.meta.url).pathname)
  await database.close()
  await server.stop()
}

/** Starts one embedded PostgreSQL for the whole run; returns the function that stops it. */
export default async function setup(project: { provide(key: 'postgres', value: PostgresForTests): void }) {
  const directory = temporaryDirectory()
  const [cluster, own] = [`${directory.path}/cluster`, `${directory.path}/own`]
  await makeCluster(cluster)
  copyCluster(`${cluster}/postgresql`, `${own}/postgresql`)
  const server = await startEmbeddedServer({ ...SERVER, stateDir: own })
  const { connection } = server
  const first = openDatabase({ ...connection, applicationName: 'tests', max: 1 })
  await first.script(`CREATE DATABASE ${TEMPLATE} TEMPLATE ${DATABASE}`)
  // Roles belong to the whole server. The password of each role is its name.
  for (const role of Object.values(ROLES)) await setRolePassword(first, role, role)
  await first.close()
  const [host] = connection.hosts
  if (host === undefined) throw new Error('an embedded server without an address')
  project.provide('postgres', {
    ...host,
    user: connection.user,
    password: connection.password?.reveal() ?? '',
    template: TEMPLATE,
    cluster: `${cluster}/postgresql`,
  })
  return async () => {
    await server.stop()
    directory.remove()
  }
}
