import { inspect } from 'node:util'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Secret } from '../../../src/settings/secret.ts'

test('a secret equals only itself', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), fc.string({ unit: 'binary' }), (a, b) => {
      expect(new Secret(a).matches(a)).toBe(true)
      expect(new Secret(a).matches(b)).toBe(a.toWellFormed() === b.toWellFormed())
      expect(new Secret(a).reveal()).toBe(a)
    }),
  )
})

test('no usual output shows it', () => {
  const secret = new Secret('hunter2')
  const holder = { secret, list: [secret] }
  const error = new Error(`wrong: ${secret}`, { cause: holder })
  const texts = [
    String(secret),
    `${secret}`,
    JSON.stringify(holder),
    inspect(holder, { depth: null, showHidden: true, getters: true }),
    inspect(error, { depth: null, showHidden: true }),
    Object.values(secret).join(),
    JSON.stringify(Object.getOwnPropertyDescriptors(secret)),
  ]
  expect(texts.join('\n')).not.toContain('hunter2')
  expect(JSON.stringify(holder)).toBe('{"secret":"[secret]","list":["[secret]"]}')
})
