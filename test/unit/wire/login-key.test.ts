import { expect, test } from 'vitest'
import { loginKey } from '../../../src/wire/login-event.ts'

test.each([
  ['Ann@Example.ORG', 'ann@example.org'],
  ['ann@example.org.', 'ann@example.org'],
  ['ann@example.org..', 'ann@example.org'],
  ['Ann.', 'ann.'],
  // Kelvin sign, dotted capital I, final sigma: locales treat them differently.
  ['\u212Aelvin', '\u212Aelvin'],
  ['İI', 'İi'],
  ['JÜRGEN', 'jÜrgen'],
  ['', ''],
])('%j is compared as %j', (login, key) => {
  expect(loginKey(login)).toBe(key)
  expect(loginKey(key)).toBe(key)
})
