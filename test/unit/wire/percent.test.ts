import fc from 'fast-check'
import { expect, test } from 'vitest'
import { percentDecode, percentEncode, percentEncodePath, printableAscii } from '../../../src/wire/key-values.ts'

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

test.each([
  ['plain text, with ~ and space', 99, 'plain text, with ~ and space'],
  ['12345', 5, '12345'],
  ['123456', 5, '12345'],
  ['a\tb\r\n\x7f', 99, 'a%09b%0D%0A%7F'],
  ['50%', 99, '50%'],
  ['50%', 3, '50%'],
  ['😀', 99, '%F0%9F%98%80'],
  ['ü漢', 99, '%C3%BC%E6%BC%A2'],
  ['ü', 6, '%C3%BC'],
  ['ü', 5, '%C3'],
  ['ü', 4, '%C3'],
  ['ü', 3, '%C3'],
  ['ü', 2, ''],
  ['100%a is kept', 99, '100%a is kept'],
  ['%ab and more', 6, '%ab an'],
])('%j is printed within %i octets as %j', (text, limit, printed) => expect(printableAscii(text, limit)).toBe(printed))
