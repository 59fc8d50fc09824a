/** The embedded PostgreSQL of a bench, and numbered addresses for its grants. */
import { type Database, type DatabaseOptions, openDatabase } from '../src/database/database.ts'
import { type EmbeddedServer, startEmbeddedServer } from '../src/database/embedded-server.ts'
import { migrate } from '../src/database/migrate.ts'
import { type IpAddress, parseIpAddress } from '../src/wire/ip-address.ts'
import { testServerAccount } from '../test/harness/postgres/server-account.ts'
import { temporaryDirectory } from '../test/harness/temporary-directory.ts'

const quiet = { debug: () => {}, info: () => {}, warn: console.warn, error: console.error }

export const startBenchServer = (stateDir: string): Promise<EmbeddedServer> =>
  startEmbeddedServer({ stateDir, log: quiet, account: testServerAccount, socketDirectoryMode: 0o755 })

type BenchDatabase = { readonly server: EmbeddedServer; readonly database: Database; close(): Promise<void> }

/** Starts a server with a new, migrated database. `close` removes both. */
export async function openBenchDatabase(options: Pick<DatabaseOptions, 'planOnce'> = {}): Promise<BenchDatabase> {
  const directory = temporaryDirectory()
  const server = await startBenchServer(directory.path)
  const database = openDatabase({
    ...server.connection,
    ...options,
    applicationName: 'bench',
    max: 4,
    statementTimeoutMs: 300_000,
  })
  const close = async (): Promise<void> => {
    await database.close()
    await server.stop()
    directory.remove()
  }
  try {
    await migrate(database, new URL('../sql/', import.meta.url).pathname)
  } catch (error) {
    await close()
    throw error
  }
  return { server, database, close }
}

/** The n-th address of 11.0.0.0/8. */
export function numberedAddress(n: number): IpAddress {
  const ip = parseIpAddress(`11.${(n >> 16) & 255}.${(n >> 8) & 255}.${n & 255}`)
  if (ip === undefined) throw new RangeError(`no address ${n}`)
  return ip
}
