import type { ConnectionOptions } from '../../../src/database/connection-options.ts'
import type { TestSettings } from '../stack.ts'

/** The `database` section for a database of a test. */
export function databaseSettings({ hosts, database, user, password }: ConnectionOptions): TestSettings {
  return {
    database: {
      dbhost: hosts.map(({ host }) => host).join(','),
      dbport: hosts[0]?.port ?? 5432,
      dbname: database,
      dbuser: user,
      dbpass: password?.reveal() ?? '',
    },
  }
}
