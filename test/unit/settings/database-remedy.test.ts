import { DatabaseError } from 'pg'
import { describe, expect, test } from 'vitest'
import { ConnectionsBusy, DatabaseUnavailable } from '../../../src/database/errors.ts'
import { databaseRemedy } from '../../../src/settings/database-remedy.ts'

/** No packaged command makes the database of another host, so every host has these remedies. */
const SITE = { hosts: [{ host: 'db.example', port: 5432 }], user: 'pop3authd' }

/** A refusal as the driver reports it, with the text of a server whose messages are German. */
function refused(code: string, text: string, routine?: string): DatabaseUnavailable {
  const cause = Object.assign(new DatabaseError(text, text.length, 'error'), { code, routine })
  return new DatabaseUnavailable(`db.example: ${text}`, { cause })
}

describe('the remedy does not depend on the language of the server', () => {
  test.each([
    ['28P01', 'auth_failed', 'Passwort-Authentifizierung für Benutzer »pop3authd« fehlgeschlagen', /^make the role/],
    ['28P01', undefined, 'SASL authentication failed', /^make the role/],
    ['28000', 'InitializeSessionUserId', 'Rolle »pop3authd« existiert nicht', /^make the role/],
    ['28000', 'auth_failed', 'Peer-Authentifizierung für Benutzer »pop3authd« fehlgeschlagen', /^run the command as/],
    ['28000', 'ClientAuthentication', 'kein pg_hba.conf-Eintrag für Host »192.0.2.1«', /^admit pop3authd by a line/],
    ['3D000', 'InitPostgres', 'Datenbank »grants« existiert nicht', /^create it with createdb/],
    ['57P03', 'ProcessStartupPacket', 'das Datenbanksystem startet', /^start PostgreSQL at db.example:5432/],
  ])('%s of %s', (code, routine, text, remedy) => {
    expect(databaseRemedy(refused(code, text, routine), SITE)).toMatch(remedy)
  })
})

test.each([
  ['SASL: SCRAM-SERVER-FIRST-MESSAGE: client password must be a string', /^write the password of pop3authd/],
  ['needs pool_mode = session', /^set pool_mode = session in the pooler/],
  ['connect ECONNREFUSED', /^start PostgreSQL/],
])('without an answer of PostgreSQL the text decides: %s', (text, remedy) => {
  expect(databaseRemedy(new DatabaseUnavailable(text), SITE)).toMatch(remedy)
})

test('an error of the next layer keeps the answer of the server, and its own name', () => {
  const inner = refused('3D000', 'Datenbank »grants« existiert nicht', 'InitPostgres')
  const outer = new DatabaseUnavailable('no primary', { cause: inner })
  expect(outer.refusal).toEqual({ code: '3D000', routine: 'InitPostgres' })
  expect(new ConnectionsBusy('every connection is busy').name).toBe('ConnectionsBusy')
})
