import { fc, test } from '@fast-check/vitest'
import { describe, expect } from 'vitest'
import { formatPath, parsePath } from '../../../src/smtp/address.ts'

const read = (argument: string): string => {
  const path = parsePath(argument, 'TO')
  return typeof path === 'string' ? path : formatPath(path, 'TO')
}

describe('addresses that pass', () => {
  test.each([
    ['TO:<u@d>', 'TO:<u@d>'],
    ['to : u@d', 'TO:<u@d>'],
    ['  TO\t:\t<u@d>  a=b   C ', 'TO:<u@d> a=b C'],
    ['TO:<@r.test:u@d>', 'TO:<u@d>'],
    ['TO:<"a\\"b <c>"@d>', 'TO:<"a\\"b <c>"@d>'],
    ['TO:<u@[192.0.2.1]>', 'TO:<u@[192.0.2.1]>'],
    ['TO:<u@[IPv6:2001:db8::1]>', 'TO:<u@[IPv6:2001:db8::1]>'],
    ['TO:<>', 'TO:<>'],
    ['TO:<postmaster>', 'TO:<postmaster>'],
    ['TO:<u@d> AUTH=<>', 'TO:<u@d> AUTH=<>'],
    ['TO:<a..b.@d>', 'TO:<a..b.@d>'],
    ['TO:<u@d_e.test>', 'TO:<u@d_e.test>'],
  ])('%s', (argument, passed) => expect(read(argument)).toBe(passed))
})

describe('addresses that are refused', () => {
  test.each([
    '',
    'TO',
    'TO:',
    'TO:<',
    'TO:<u@d',
    'TO:u@d>',
    'TO <u@d>',
    'FROM:<u@d>',
    'X<u@d>',
    'TO:<u@d><v@e>',
    'TO:<u@d> <v@e>',
    'TO:<u@d>,<v@e>',
    'TO:<u@d>a=b',
    'TO:u@d <v@e>',
    'TO:<u @d>',
    'TO:<u@d e>',
    'TO:<u@>',
    'TO:<@d>',
    'TO:<@r:u@d',
    'TO:<"u@d>',
    'TO:<u@[d>',
    'TO:<u@d> =b',
    'TO:<u@d> a=',
    'TO:<u@d> a=b=c',
    'TO:<<u@d>>',
    'TO:(x)<u@d>',
    'TO:<u@d>(x)',
    'TO:<u@d;v@e>',
    'TO:u@d,v@e',
  ])('%s', argument => expect(read(argument)).toBe('syntax'))

  test('an address that is too long', () => {
    expect(read(`TO:<${'u'.repeat(64)}@d>`)).not.toBe('tooLong')
    expect(read(`TO:<${'u'.repeat(65)}@d>`)).toBe('tooLong')
    expect(read(`TO:<u@${'d'.repeat(256)}>`)).toBe('tooLong')
    expect(read(`TO:<${'u'.repeat(64)}@${'d'.repeat(200)}>`)).toBe('tooLong')
  })

  test('octets that are not UTF-8', () => {
    expect(read('TO:<u@b\xfc.test>')).toBe('not_utf8')
    expect(read('TO:<u@b\xc3\xbc.test>')).toBe('TO:<u@b\xc3\xbc.test>')
    expect(read('TO:<u@d> a=\xfc')).toBe('not_utf8')
  })
})

const word = fc.constantFrom(
  '<',
  '>',
  '@',
  ',',
  ':',
  '"',
  '\\',
  ' ',
  '\t',
  'u',
  'd',
  'a=b',
  'TO',
  '[',
  ']',
  '(',
  ';',
  '%',
  '\xfc',
)

test.prop([fc.array(word, { maxLength: 20 }).map(words => `TO:${words.join('')}`)])(
  'an accepted address is parsed back to the same one, and contains one pair of brackets outside quotes',
  argument => {
    const passed = read(argument)
    fc.pre(passed.startsWith('TO:'))
    expect(read(passed)).toBe(passed)
    const bare = passed.replace(/"(?:[^"\\]|\\.)*"/g, 'q').replace(/(?<= )\S+/g, '')
    expect(bare.match(/[<>]/g)).toEqual(['<', '>'])
  },
)
