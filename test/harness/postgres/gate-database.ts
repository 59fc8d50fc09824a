import { ignored as anything } from '../../../src/database/statement.ts'
import { notifyChange } from '../../../src/grants/grant-changes.ts'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import type { TestSettings } from '../stack.ts'
import { createTestDatabase, type TestDatabase } from './test-database.ts'

/** A database with the grants of a test, and the settings by which the gate finds it. */
export class GateDatabase {
  readonly database: TestDatabase

  private constructor(database: TestDatabase) {
    this.database = database
  }

  static async create(): Promise<GateDatabase> {
    return new GateDatabase(await createTestDatabase())
  }

  /**
   * Stores a grant as a login does, with the notification. `seconds` from now; negative: the grant
   * has ended.
   */
  async grant(ip: string, login: string, seconds = 600): Promise<void> {
    await this.database.owner.query(
      {
        text: `INSERT INTO grants (ip, until, daemon, username) VALUES ($1, now() + make_interval(secs => $2), 'test', $3)
               ON CONFLICT (ip) DO UPDATE SET until = EXCLUDED.until, username = EXCLUDED.username`,
        row: anything,
      },
      [ip, seconds, login],
    )
    await notifyChange(this.database.owner)
  }

  async delete(ip: IpAddress | string): Promise<void> {
    await this.database.owner.query({ text: 'DELETE FROM grants WHERE ip = $1', row: anything }, [ip])
    await notifyChange(this.database.owner)
  }

  /** Settings with the gate's own role. */
  get settings(): TestSettings {
    const { hosts, database, user, password } = this.database.connection('authwrap')
    return {
      database: {
        dbhost: hosts.map(({ host }) => host).join(','),
        dbport: hosts[0]?.port ?? 5432,
        dbname: database,
        wrap_dbuser: user,
        wrap_dbpass: password?.reveal() ?? '',
      },
      grants: { grant_loopback: true },
    }
  }

  /**
   * Settings for a mail server that queries the database itself. `host`: a name, or the folder of
   * the server's Unix socket.
   */
  get reader(): { host: string; port: number; dbname: string; user: string; password: string } {
    const { hosts, database, user, password } = this.database.connection('authwrap')
    const [{ host, port } = { host: '', port: 5432 }] = hosts
    return { host, port, dbname: database, user, password: password?.reveal() ?? '' }
  }

  /** The same as environment variables, for a gate without a settings file. */
  get environment(): Record<string, string> {
    const { hosts, database, user, password } = this.database.connection('authwrap')
    return {
      DBHOST: hosts.map(({ host }) => host).join(','),
      DBPORT: String(hosts[0]?.port ?? 5432),
      DBNAME: database,
      WRAP_DBUSER: user,
      WRAP_DBPASS: password?.reveal() ?? '',
      GRANT_LOOPBACK: '1',
    }
  }

  remove(): Promise<void> {
    return this.database.remove()
  }
}
