import fc from 'fast-check'
import * as v from 'valibot'
import { afterAll, describe, expect, test } from 'vitest'
import { openDatabase } from '../../src/database/database.ts'
import { migrate } from '../../src/database/migrate.ts'
import type { Statement } from '../../src/database/statement.ts'
import { loginKey } from '../../src/wire/login-event.ts'
import { createTestDatabase } from '../harness/postgres/test-database.ts'

const SQL = new URL('../../sql/', import.meta.url).pathname
const KEYS: Statement<{ key: string }> = {
  text: 'SELECT login_key(login) AS key FROM unnest($1::text[]) WITH ORDINALITY AS t(login, n) ORDER BY n',
  row: v.object({ key: v.string() }),
}
/** The Turkish locale folds I to a different letter; the locale C folds ASCII letters alone. */
const LOCALES = [
  ['ICU, Turkish', "LOCALE_PROVIDER icu ICU_LOCALE 'tr-TR' LOCALE 'C'"],
  ['ICU, English', "LOCALE_PROVIDER icu ICU_LOCALE 'en-US' LOCALE 'C'"],
  ['C', "LOCALE_PROVIDER libc LOCALE 'C'"],
] as const

describe.each(LOCALES)('in a database with the locale %s', (_, locale) => {
  const made = createTestDatabase({ empty: true })
  afterAll(async () => (await made).remove())

  test('the key of a login is the same in SQL and in the programs', async () => {
    const { owner, connection } = await made
    const { database: name } = connection()
    const server = openDatabase({ ...connection(), database: 'postgres', applicationName: 'tests', max: 1 })
    const inLocale = `${name}_l`
    await server.script(`CREATE DATABASE ${inLocale} TEMPLATE template0 ENCODING 'UTF8' ${locale}`)
    const database = openDatabase({ ...connection(), database: inLocale, applicationName: 'tests', max: 1 })
    try {
      await migrate(database, SQL)
      const name = fc.string({ unit: fc.constantFrom(...'aIiİıKÜüßΣςÅ@.. \u0301\u212A\u{10400}'), maxLength: 12 })
      const logins = [...fc.sample(name, 500), ...fc.sample(fc.string({ unit: 'grapheme' }), 200), 'I@EXAMPLE.ORG.']
        .map(login => login.replaceAll('\0', ''))
        .filter(login => login.isWellFormed())
      const { rows } = await database.query(KEYS, [logins])
      expect(rows.map(({ key }) => key)).toEqual(logins.map(loginKey))
      // The check of the table uses the same rule, so that the table accepts every key.
      await database.script("INSERT INTO blocks (login, reason, owner) VALUES (login_key('JÜRGEN@I.'), '', '')")
    } finally {
      await database.close()
      await server.script(`DROP DATABASE ${inLocale}`)
      await server.close()
    }
    expect(owner).toBeDefined()
  })
})
