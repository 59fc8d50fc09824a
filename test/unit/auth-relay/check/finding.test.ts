/** Findings from faults of programs: the remedy is a field, never cut out of a text. */

import { expect, test } from 'vitest'
import { checkPlaces } from '../../../../src/auth-relay/check/check-host.ts'
import { unsafeBecause } from '../../../../src/auth-relay/check/finding.ts'
import { TemporaryFault, UsageFault } from '../../../../src/base/errors.ts'
import { databaseConnection } from '../../../../src/settings/database-connection.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'

function faultOf(read: () => unknown): UsageFault {
  try {
    read()
  } catch (error) {
    if (error instanceof UsageFault) return error
  }
  throw new Error('no UsageFault')
}

test('a fact and a remedy may contain colons', () => {
  const fault = { fact: 'cannot read /x: ENOENT: no such file', remedy: 'create it with: mkfifo -m 600 /x' }
  expect(unsafeBecause('authd.syslog_fifo', new TemporaryFault(fault))).toEqual([
    { verdict: 'unsafe', about: 'authd.syslog_fifo', text: fault.fact, remedy: fault.remedy },
  ])
})

test('each fault is a finding, about the setting that it names', () => {
  const error = new UsageFault([{ setting: 'alerts.off', fact: 'no rule x', remedy: 'remove it' }, 'unknown'])
  expect(error.message).toBe('alerts.off: no rule x: remove it\nunknown')
  expect(error.faults).toEqual(['alerts.off: no rule x: remove it', 'unknown'])
  expect(unsafeBecause('alerts.close', error)).toEqual([
    { verdict: 'unsafe', about: 'alerts.off', text: 'no rule x', remedy: 'remove it' },
    { verdict: 'unsafe', about: 'alerts.close', text: 'unknown', remedy: 'see the message' },
  ])
})

test('the message of the system is never the remedy', () => {
  const text = '[database]\ndbhost = "db.example"\ndbtls = "verify"\ndbtls_ca = "/nonexistent"\n'
  const { settings } = parseSettings(text, '/etc/auth-relay.toml')
  const error = faultOf(() => databaseConnection(settings, 'writer'))
  expect(unsafeBecause('database.dbuser', error)).toEqual([
    {
      verdict: 'unsafe',
      about: 'database.dbtls_ca',
      text: expect.stringMatching(/^cannot read \/nonexistent: ENOENT: no such file or directory/),
      remedy: 'name the file with the certificates of the authorities',
    },
  ])
})

test('a path with a colon is part of the fact', () => {
  const { settings } = parseSettings('[grants]\nmmdb_files = ["/no: file"]\n', '/etc/auth-relay.toml')
  expect(checkPlaces(settings, new Date())).toEqual([
    {
      verdict: 'unsafe',
      about: 'grants.mmdb_files',
      text: expect.stringMatching(/^\/no: file: ENOENT/),
      remedy: 'install the file, or take it out of the setting',
    },
  ])
})
