import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { baseNameOf, namedSizes, seenName } from '../../../src/pop3d/maildir-name.ts'
import { inMaildropOrder, type Message } from '../../../src/pop3d/message.ts'
import { uniqueIds } from '../../../src/pop3d/unique-ids.ts'

describe('names in a maildir', () => {
  test.each([
    ['1000.M1P2.host,S=12,W=14:2,S', { file: 12, wire: 14 }],
    ['1000.M1P2.host,S=12', { file: 12, wire: undefined }],
    ['1000.M1P2.host,W=14,S=12:2,', { file: 12, wire: 14 }],
    ['1000.M1P2.host,W=14', undefined],
    ['1000.M1P2.host:2,S=12', undefined],
    ['1000.M1P2.host,S=12x', undefined],
    ['1000.M1P2.host,S=', undefined],
    [',S=0', { file: 0, wire: undefined }],
  ])('%s says %j about the sizes', (name, sizes) => {
    expect(namedSizes(name)).toEqual(sizes)
  })

  test('the base name ends at the first colon', () => {
    expect(['a', 'a:2,S', 'a:b:2,S', ':2,', ''].map(baseNameOf)).toEqual(['a', 'a', 'a', '', ''])
  })

  test('a name gets flags when it has none', () => {
    expect([seenName('a', 'none'), seenName('a:2,S', 'none'), seenName('a:2,S', 'qmail')]).toEqual([
      'a:2,',
      'a:2,S',
      'a:2,S:2,',
    ])
  })
})

const message = fc.record({
  folder: fc.constantFrom('new' as const, 'cur' as const),
  name: fc.oneof(
    fc.constantFrom('a', 'b', 'a:2,', 'a:2,S', ''),
    fc.array(fc.nat(255), { maxLength: 90 }).map(octets => String.fromCharCode(...octets)),
  ),
  fileOctets: fc.nat(),
  mtime: fc.nat(3),
})
/** As a directory has them: no two of a folder with the same name. */
const maildrop = fc.uniqueArray(message, { selector: ({ folder, name }: Message) => `${folder}/${name}` })

test('any two messages have an order, whatever order the directory gives them in', () => {
  fc.assert(
    fc.property(maildrop, messages => {
      const sorted = [...messages].sort(inMaildropOrder)
      expect([...messages].reverse().sort(inMaildropOrder)).toEqual(sorted)
      for (const [index, { mtime }] of sorted.entries())
        expect(mtime).toBeGreaterThanOrEqual(sorted[index - 1]?.mtime ?? 0)
    }),
  )
})

test('unique-ids are legal and unique, and are qmail’s where those are', () => {
  fc.assert(
    fc.property(maildrop, messages => {
      const ids = uniqueIds(messages)
      expect(new Set(ids).size).toBe(messages.length)
      for (const id of ids) expect(id).toMatch(/^[\x21-\x7e]{1,70}$/)
      const bases = messages.map(({ name }) => baseNameOf(name))
      for (const [index, base] of bases.entries()) {
        if (/^[\x21-\x7e]{1,70}$/.test(base) && bases.indexOf(base) === index && !/^[0-9a-f]{64}$/.test(base)) {
          expect(ids[index]).toBe(base)
        }
      }
    }),
  )
})
