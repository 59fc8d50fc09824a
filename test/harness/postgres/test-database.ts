import { randomBytes } from 'node:crypto'
import { inject } from 'vitest'
import type { ConnectionOptions } from '../../../src/database/connection-options.ts'
import { type Database, type DatabaseOptions, openDatabase } from '../../../src/database/database.ts'

/** A database for one file of tests. */
export type TestDatabase = {
  readonly name: string
  /** Options of a superuser connection. */
  readonly owner: Database
  /** Options of a connection; the password of another role is its name. */
  connection(role?: 'postgres' | 'pop3authd' | 'authwrap' | 'authstatus'): ConnectionOptions
  /** A connection as that role; `remove` closes it. */
  open(role: 'postgres' | 'pop3authd' | 'authwrap' | 'authstatus', options?: Partial<DatabaseOptions>): Database
  remove(): Promise<void>
}

/**
 * A copy of the migrated template, or an empty database. Call `remove` when done; it fails if a
 * test left a connection open.
 */
export async function createTestDatabase({ empty = false }: { empty?: boolean } = {}): Promise<TestDatabase> {
  const postgres = inject('postgres')
  const name = `test_${randomBytes(6).toString('hex')}`
  const base: ConnectionOptions = {
    hosts: [{ host: postgres.host, port: postgres.port }],
    database: name,
    user: postgres.user,
    password: { reveal: () => postgres.password },
  }
  const server = openDatabase({ ...base, database: 'postgres', applicationName: 'tests', max: 1 })
  // Copies of one template wait for each other inside PostgreSQL for a limited time. After that
  // PostgreSQL refuses the copy.
  const template = empty ? 'template0' : postgres.template
  await retried(() => server.script(`CREATE DATABASE ${name} TEMPLATE ${template} STRATEGY FILE_COPY`))
  const opened: Database[] = []
  const connection = (role: 'postgres' | 'pop3authd' | 'authwrap' | 'authstatus' = 'postgres'): ConnectionOptions =>
    role === 'postgres' ? base : { ...base, user: role, password: { reveal: () => role } }
  const open = (
    role: 'postgres' | 'pop3authd' | 'authwrap' | 'authstatus',
    options: Partial<DatabaseOptions> = {},
  ): Database => {
    const database = openDatabase({ applicationName: 'tests', ...connection(role), ...options })
    opened.push(database)
    return database
  }
  return {
    name,
    owner: open('postgres'),
    connection,
    open,
    async remove() {
      await Promise.all(opened.map(database => database.close()))
      await retried(() => server.script(`DROP DATABASE ${name}`))
      await server.close()
    },
  }
}

/**
 * Repeats work that PostgreSQL refuses while a template is in use or a connection is being closed.
 */
async function retried(work: () => Promise<void>): Promise<void> {
  for (let left = 50; ; left--) {
    try {
      return await work()
    } catch (error) {
      if (left === 0) throw error
      await new Promise(resolve => setTimeout(resolve, 20))
    }
  }
}
