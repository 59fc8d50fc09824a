import { execFileSync, spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import * as v from 'valibot'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { migrate } from '../../src/database/migrate.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

const SQL = new URL('../../sql/', import.meta.url).pathname

const optionsFor = (
  cluster: PostgresCluster,
  database: string,
  user = 'postgres',
  password = PostgresCluster.password,
) => ({
  hosts: [{ host: '127.0.0.1', port: cluster.port }],
  database,
  user,
  password: { reveal: () => password },
  applicationName: 'tests',
})

/** Every right on the tables, views, columns and functions of auth-relay, with the roles. */
const RIGHTS = {
  row: v.object({ thing: v.string(), acl: v.nullable(v.string()) }),
  text: `
SELECT relname AS thing, array_to_string(ARRAY(SELECT unnest(relacl)::text ORDER BY 1), ' ') AS acl
FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'v', 'p')
UNION ALL
SELECT attrelid::regclass || '.' || attname, attacl::text
FROM pg_attribute WHERE attacl IS NOT NULL AND attrelid::regclass::text !~ '^pg_|^information_schema'
UNION ALL
SELECT oid::regprocedure::text, array_to_string(ARRAY(SELECT unnest(proacl)::text ORDER BY 1), ' ')
FROM pg_proc WHERE pronamespace = 'public'::regnamespace
UNION ALL
SELECT rolname, concat_ws(' ', rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolreplication, rolinherit)
FROM pg_roles WHERE rolname IN ('pop3authd', 'authwrap', 'authstatus')
ORDER BY 1`,
}

const use = async <T>(database: Database, work: (database: Database) => Promise<T>): Promise<T> => {
  try {
    return await work(database)
  } finally {
    await database.close()
  }
}

describeWith([DEBIAN_POSTGRES], 'a dump that is restored on a new server', () => {
  let old: PostgresCluster
  let fresh: PostgresCluster
  beforeAll(async () => {
    ;[old, fresh] = await Promise.all([PostgresCluster.start(), PostgresCluster.start()])
  })
  afterAll(async () => {
    await old?.remove()
    await fresh?.remove()
  })

  test('migrate makes the roles and all their rights, and the restored grants are there', async () => {
    for (const cluster of [old, fresh]) {
      await use(openDatabase(optionsFor(cluster, 'postgres')), database => database.script('CREATE DATABASE pop3authd'))
    }
    const rights = await use(openDatabase(optionsFor(old, 'pop3authd')), async database => {
      await migrate(database, SQL)
      await database.script("INSERT INTO grants (ip, until, daemon) VALUES ('192.0.2.7', 'infinity', 'test')")
      const before = (await database.query(RIGHTS)).rows
      await migrate(database, SQL)
      expect((await database.query(RIGHTS)).rows).toEqual(before)
      return before
    })
    const client = (cluster: PostgresCluster) => ({
      env: { PGPASSWORD: PostgresCluster.password, PATH: process.env['PATH'], LC_ALL: 'C' },
      host: ['-h', '127.0.0.1', '-p', String(cluster.port), '-U', 'postgres', '-d', 'pop3authd'],
    })
    const from = client(old)
    const dump = execFileSync('pg_dump', from.host, { env: from.env })
    const to = client(fresh)
    const restore = spawnSync('psql', to.host, { env: to.env, input: dump, encoding: 'utf8' })
    expect(restore.stderr).toContain('role "pop3authd" does not exist')

    await use(openDatabase(optionsFor(fresh, 'pop3authd')), async database => {
      const { from: schema, to: known } = await migrate(database, SQL)
      expect(schema).toBe(known)
      expect((await database.query(RIGHTS)).rows).toEqual(rights)
      await database.script("ALTER ROLE authwrap PASSWORD 'authwrap'")
    })
    await use(openDatabase(optionsFor(fresh, 'pop3authd', 'authwrap', 'authwrap')), async database => {
      await database.script("SELECT 1 / count(*) FROM relay_gate WHERE ip = '192.0.2.7'")
      // A role without ownership repairs nothing, and gets no error.
      await expect(migrate(database, SQL)).resolves.toEqual({ from: expect.any(Number), to: expect.any(Number) })
    })
  })

  test('the command in MIGRATING saves the rows of both histories, in partitions and in none', async () => {
    const text = readFileSync(new URL('../../docs/MIGRATING.md', import.meta.url), 'utf8')
    const [, patterns = ''] = /`pg_dump ((?:-t '\S+' ?)+)pop3authd`/.exec(text) ?? []
    expect(patterns).not.toBe('')
    await use(openDatabase(optionsFor(old, 'postgres')), database => database.script('CREATE DATABASE kept'))
    await use(openDatabase(optionsFor(old, 'kept')), async database => {
      await migrate(database, SQL)
      for (const [at, ip] of [
        ['now()', '192.0.2.7'],
        ["'2021-01-02'", '192.0.2.8'],
      ])
        await database.script(`
          INSERT INTO usage_event (at, ip, service) VALUES (${at}, '${ip}', 'gate');
          INSERT INTO login_event (at, ip, network, daemon, method, tls, session, refused)
            VALUES (${at}, '${ip}', '${ip}', 'popup', 'pass', true, '', 'never')`)
    })
    const dump = execFileSync('sh', ['-c', `pg_dump -a -h 127.0.0.1 -p ${old.port} -U postgres ${patterns} kept`], {
      env: { PGPASSWORD: PostgresCluster.password, PATH: process.env['PATH'], LC_ALL: 'C' },
      encoding: 'utf8',
    })
    const rows = dump.split('\n').filter(line => /\t192\.0\.2\.[78]\t/.test(line))
    expect(rows.map(line => line.split('\t').slice(1, 3).join(' ')).toSorted()).toEqual([
      '192.0.2.7 192.0.2.7',
      '192.0.2.7 gate',
      '192.0.2.8 192.0.2.8',
      '192.0.2.8 gate',
    ])
  })
})
