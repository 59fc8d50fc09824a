import { expect, test } from 'vitest'
import { baseNameOf, isUniqueId } from '../../../src/wire/message-name.ts'

test('the base name of a message file ends at the first colon', () => {
  expect(['a', 'a:2,S', 'a:b:2,S', ':2,', ''].map(baseNameOf)).toEqual(['a', 'a', 'a', '', ''])
})

test('a unique-id has 1 to 70 characters from 0x21 to 0x7E', () => {
  expect(['!', '~', 'x'.repeat(70)].filter(isUniqueId)).toHaveLength(3)
  expect(['', 'x'.repeat(71), ' ', 'a b', 'a ', ' a', '\x7f', 'a\x80', 'a\n', '\xff'].filter(isUniqueId)).toEqual([])
})
