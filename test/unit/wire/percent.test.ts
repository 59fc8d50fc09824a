import fc from 'fast-check'
import { expect, test } from 'vitest'
import { percentDecode, percentEncode, percentEncodePath } from '../../../src/wire/lines.ts'

const anyText = fc.string({ unit: 'binary' })

test('an encoded text is decoded again, and contains no character that could end a value', () => {
  fc.assert(
    fc.property(anyText, text => {
      const encoded = percentEncode(text)
      expect(encoded).toMatch(/^(?:[A-Za-z0-9._-]|%[0-9A-F]{2})*$/)
      expect(percentDecode(encoded)).toBe(text.toWellFormed())
    }),
  )
})

test('the slashes of a path are not encoded', () => {
  fc.assert(
    fc.property(anyText, text => {
      expect(percentEncodePath(text)).toBe(percentEncode(text).replaceAll('%2F', '/'))
    }),
  )
})

test('every mark outside of the plain ones is written as an octet in capitals', () => {
  expect(percentEncode("*~!'() %/aZ0._-")).toBe('%2A%7E%21%27%28%29%20%25%2FaZ0._-')
  expect(percentEncodePath('/home/a b/~c')).toBe('/home/a%20b/%7Ec')
})

test('a part of a character becomes the replacement character', () => {
  expect(percentEncode('a\ud800b')).toBe('a%EF%BF%BDb')
})

test.each(['%', '%4', '%zz', 'a%', '%ff', '%c3', '%c3%28', '%ed%a0%80'])('%j is not decoded', text => {
  expect(percentDecode(text)).toBeUndefined()
})
