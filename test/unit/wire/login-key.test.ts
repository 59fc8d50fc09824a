import { describe, expect, test } from 'vitest'
import { decodeLogin, isLoginOctets, loginKey, loginOctets, loginText } from '../../../src/wire/login-event.ts'

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

describe('a login as octets and as text', () => {
  test.each([
    ['ann', 'ann'],
    ['', ''],
    ['J\xc3\xbcrgen', 'Jürgen'],
    // Neither is UTF-8: each octet is the character of its number.
    ['J\xfcrgen', 'Jürgen'],
    ['\xc3\xbc\xff', '\xc3\xbc\xff'],
    ['\x7f\x80', '\x7f\x80'],
  ])('%j is the text %j', (octets, text) => {
    expect(decodeLogin(octets)).toBe(text)
    expect(loginText(loginOctets(octets))).toBe(text)
  })

  test.each(['a\0b', '\0', 'a\0', 'Ā', 'aĀ', 'Āa'])('%j has another character than octets from 1 to 255', value => {
    expect(isLoginOctets(value)).toBe(false)
    expect(() => loginOctets(value)).toThrow(new TypeError('a login name holds octets other than NUL'))
  })
})
