import { execFileSync } from 'node:child_process'
import { readFileSync, writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { FORMATS, readForeignGrants } from '../../src/auth-relay/verbs/logs/foreign-grants.ts'
import { createTestDatabase } from '../harness/postgres/test-database.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'

describeWith([command('psql', 'postgresql-client')], 'the table of auth-relay 0.90', () => {
  const { path, remove } = temporaryDirectory()
  afterAll(remove)

  test('is imported by the command in MIGRATING', async () => {
    const text = readFileSync(new URL('../../docs/MIGRATING.md', import.meta.url), 'utf8')
    const [, query = ''] = /^psql -AtF, -d olddb -c "(.*)" \| auth-relay import csv -$/m.exec(text) ?? []
    expect(query).not.toBe('')
    const database = await createTestDatabase({ empty: true })
    const now = new Date()
    await database.owner.script(`
      CREATE TABLE relay (ip inet PRIMARY KEY, last_auth timestamptz NOT NULL, username text);
      INSERT INTO relay VALUES ('192.0.2.7', now() - interval '90.9 seconds', 'ann@example.org'),
        ('2001:db8::7', now(), NULL), ('192.0.2.8', now() - interval '1 day', 'bob')`)
    const { hosts, user, password } = database.connection()
    const [server] = hosts
    if (server === undefined) throw new Error('no server')
    const printed = execFileSync('psql', ['-AtF,', '-d', database.name, '-c', query], {
      env: {
        PATH: process.env['PATH'],
        PGHOST: server.host,
        PGPORT: String(server.port),
        PGUSER: user,
        PGPASSWORD: password?.reveal(),
      },
    })
    writeFileSync(`${path}/printed`, printed)
    const csv = FORMATS['csv']
    if (csv === undefined) throw new Error('no csv')
    const { logins, faults } = readForeignGrants(csv, `${path}/printed`, { now: new Date(), expTime: 1_800_000 })
    expect(faults).toBe(0)
    const ages = logins.map(({ ip, at, user: login }) => [
      ip,
      // The database's clock may be a little ahead, so an age of minus zero is zero.
      Math.round((now.getTime() - at.getTime()) / 10_000) + 0,
      login,
    ])
    expect(ages.toSorted()).toEqual([
      ['192.0.2.7', 9, 'ann@example.org'],
      ['192.0.2.8', 8640, 'bob'],
      ['2001:db8::7', 0, ''],
    ])
    await database.remove()
  })
})
