import { execFile } from 'node:child_process'
import { cpSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { promisify } from 'node:util'
import * as v from 'valibot'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { pop3authdSql } from '../../scripts/generate/pop3authd-sql.ts'
import type { Database } from '../../src/database/database.ts'
import { openDatabase } from '../../src/database/database.ts'
import { MigrationFailed, SchemaTooNew } from '../../src/database/errors.ts'
import { migrate, readMigrations } from '../../src/database/migrate.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

const SQL = new URL('../../sql/', import.meta.url).pathname
const LATEST = readdirSync(SQL).filter(name => /^\d{6}-/.test(name)).length

/** Every table, view, column, index, constraint, function and privilege in the catalogue. */
const CATALOGUE = {
  row: v.object({ line: v.string() }),
  text: `
SELECT 'relation ' || c.relname || ' ' || c.relkind::text || ' ' || coalesce(array_to_string(c.relacl, ','), '') AS line
FROM pg_class c WHERE c.relnamespace = 'public'::regnamespace
UNION ALL
SELECT 'column ' || c.relname || ' ' || a.attnum || ' ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
       || ' ' || a.attnotnull || ' ' || coalesce(array_to_string(a.attacl, ','), '')
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
WHERE c.relnamespace = 'public'::regnamespace AND a.attnum > 0
UNION ALL
SELECT 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid)
FROM pg_constraint WHERE connamespace = 'public'::regnamespace
UNION ALL
SELECT 'function ' || proname || ' ' || prosrc || coalesce(array_to_string(proacl, ','), '')
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT 'version ' || v FROM schema_version
ORDER BY 1`,
}
const catalogue = async (database: Database): Promise<readonly string[]> =>
  (await database.query(CATALOGUE)).rows.map(({ line }) => line)

const databases: TestDatabase[] = []
const emptyDatabase = async (): Promise<TestDatabase> => {
  const database = await createTestDatabase({ empty: true })
  databases.push(database)
  return database
}
afterAll(() => Promise.all(databases.map(database => database.remove())))

describe('migrate', () => {
  test('installs the schema, and has nothing to do the second time', async () => {
    const { owner } = await emptyDatabase()
    expect(await migrate(owner, SQL)).toEqual({ from: 0, to: LATEST })
    const installed = await catalogue(owner)
    expect(installed).toContain('version 4')
    expect(await migrate(owner, SQL)).toEqual({ from: LATEST, to: LATEST })
    expect(await catalogue(owner)).toEqual(installed)
  })

  test('twenty programs that start at once install the schema once', async () => {
    const fresh = await emptyDatabase()
    const starters = Array.from({ length: 20 }, () => fresh.open('postgres', { max: 1 }))
    const results = await Promise.all(starters.map(starter => migrate(starter, SQL)))
    expect(results.map(({ to }) => to)).toEqual(Array(20).fill(LATEST))
    const reference = await emptyDatabase()
    await migrate(reference.owner, SQL)
    expect(await catalogue(fresh.owner)).toEqual(await catalogue(reference.owner))
  })

  test('continues from any earlier version', async () => {
    const { owner } = await emptyDatabase()
    const earlier = temporaryDirectory()
    for (const { file, text } of (await readMigrations(SQL)).slice(0, 2)) writeFileSync(`${earlier.path}/${file}`, text)
    expect(await migrate(owner, earlier.path)).toEqual({ from: 0, to: 2 })
    expect(await migrate(owner, SQL)).toEqual({ from: 2, to: LATEST })
    earlier.remove()
  })

  test('an older program refuses a newer schema with a message', async () => {
    const { owner } = await emptyDatabase()
    await migrate(owner, SQL)
    await owner.script(`INSERT INTO schema_version (v) VALUES (${LATEST + 1})`)
    const before = await catalogue(owner)
    const refusal = await migrate(owner, SQL).catch((error: unknown) => error)
    expect(refusal).toBeInstanceOf(SchemaTooNew)
    expect(refusal).toMatchObject({
      found: LATEST + 1,
      known: LATEST,
      message: expect.stringContaining('run a newer auth-relay'),
    })
    expect(await catalogue(owner)).toEqual(before)
  })

  test('a migration that fails changes nothing', async () => {
    const { owner } = await emptyDatabase()
    const directory = temporaryDirectory()
    cpSync(SQL, directory.path, { recursive: true })
    writeFileSync(
      `${directory.path}/${String(LATEST + 1).padStart(6, '0')}-broken.sql`,
      `INSERT INTO schema_version (v) VALUES (${LATEST + 1}); CREATE TABLE half (a int); SELECT nonsense;`,
    )
    const failure = await migrate(owner, directory.path).catch((error: unknown) => error)
    expect(failure).toBeInstanceOf(MigrationFailed)
    expect(failure).toMatchObject({ file: `${String(LATEST + 1).padStart(6, '0')}-broken.sql` })
    const after = await catalogue(owner)
    expect(after).toContain('version 4')
    expect(after.join('\n')).not.toContain('half')
    directory.remove()
  })

  test('migrations are numbered without a gap', async () => {
    const directory = temporaryDirectory()
    writeFileSync(`${directory.path}/000002-second.sql`, '')
    await expect(readMigrations(directory.path)).rejects.toThrow('expected number 1')
    directory.remove()
  })

  test('without the right to create roles the error names the remedy', async () => {
    const { owner, name } = await emptyDatabase()
    // The check runs on a server without these roles, so this test replaces their names by a
    // different one.
    const directory = temporaryDirectory()
    for (const { file, text } of await readMigrations(SQL)) {
      writeFileSync(`${directory.path}/${file}`, text.replaceAll('pop3authd', `absent_${name}`))
    }
    await owner.script(`CREATE ROLE plain_${name}; GRANT CREATE ON SCHEMA public TO plain_${name}`)
    const failure = await owner
      .transaction(async session => {
        await session.script(`SET LOCAL ROLE plain_${name}`)
        for (const { text } of await readMigrations(directory.path)) await session.script(text)
      })
      .catch((error: unknown) => error)
    expect(failure).toMatchObject({ message: expect.stringContaining(`may not create the role absent_${name}`) })
    await owner.script(`DROP OWNED BY plain_${name}; DROP ROLE plain_${name}`)
    directory.remove()
  })
})

describe('pop3authd.sql', () => {
  test('contains exactly the migrations', async () => {
    expect(readFileSync(`${SQL}pop3authd.sql`, 'utf8')).toBe(pop3authdSql(await readMigrations(SQL)))
  })

  describeWith([command('psql', 'postgresql-client')], 'with psql', () => {
    let loaded: TestDatabase
    beforeAll(async () => {
      loaded = await emptyDatabase()
      const { hosts, user, password } = loaded.connection()
      const args = ['-X', '-q', '-d', loaded.name, '-f', `${SQL}pop3authd.sql`]
      const environment = {
        PATH: process.env['PATH'],
        PGHOST: hosts[0]?.host,
        PGPORT: String(hosts[0]?.port),
        PGUSER: user,
        PGPASSWORD: password?.reveal(),
      }
      await promisify(execFile)('psql', args, { env: environment })
    })

    test('psql -f makes the same schema, and a program finds it up to date', async () => {
      const migrated = await emptyDatabase()
      await migrate(migrated.owner, SQL)
      expect(await catalogue(loaded.owner)).toEqual(await catalogue(migrated.owner))
      expect(await migrate(loaded.owner, SQL)).toEqual({ from: LATEST, to: LATEST })
    })
  })
})

describeWith([DEBIAN_POSTGRES], "the host's own PostgreSQL", () => {
  let cluster: PostgresCluster
  beforeAll(async () => {
    cluster = await PostgresCluster.start()
  })
  afterAll(() => cluster.remove())

  test('accepts the migrations too', async () => {
    const database = openDatabase({
      hosts: [{ host: '127.0.0.1', port: cluster.port }],
      database: 'postgres',
      user: 'postgres',
      password: { reveal: () => PostgresCluster.password },
      applicationName: 'tests',
    })
    expect(await migrate(database, SQL)).toEqual({ from: 0, to: LATEST })
    expect(await migrate(database, SQL)).toEqual({ from: LATEST, to: LATEST })
    await database.close()
  })
})
