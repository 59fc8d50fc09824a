import fc from 'fast-check'
import { expect, test } from 'vitest'
import { parseKeyValues } from '../../../src/wire/key-values.ts'

const key = fc.string({ unit: fc.constantFrom(...'abcz_'), minLength: 1, maxLength: 32 })
const value = fc.string({ unit: 'grapheme-ascii' }).map(text => text.replaceAll(' ', ''))

test('pairs are parsed back, with unchanged values', () => {
  fc.assert(
    fc.property(fc.dictionary(key, value, { minKeys: 1 }), pairs => {
      const line = Object.entries(pairs)
        .map(([name, text]) => `${name}=${text}`)
        .join(' ')
      expect(Object.fromEntries(parseKeyValues(line) ?? [])).toEqual({ ...pairs })
    }),
  )
})

test('a value may be empty and may contain equals signs', () => {
  expect([...(parseKeyValues('a= b=c=d') ?? [])]).toEqual([
    ['a', ''],
    ['b', 'c=d'],
  ])
})

test.each([
  ...['', ' ', 'a', 'ab', 'a=1 bc', '=b', 'a=1  b=2', ' a=1', 'a=1 '],
  ...['a=1 a=2', 'A=1', 'a1=1', 'é=1', `${'a'.repeat(33)}=1`],
])('any other shape is refused: %j', line => {
  expect(parseKeyValues(line)).toBeUndefined()
})
