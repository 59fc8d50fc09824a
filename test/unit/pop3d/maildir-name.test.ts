import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { isTrashed, seenName } from '../../../src/pop3d/maildir/folders.ts'
import { inMaildropOrder, type Message, uniqueIds } from '../../../src/pop3d/maildir/scan-maildir.ts'
import { baseNameOf } from '../../../src/wire/message-name.ts'

describe('names in a maildir', () => {
  test('the base name ends at the first colon', () => {
    expect(['a', 'a:2,S', 'a:b:2,S', ':2,', ''].map(baseNameOf)).toEqual(['a', 'a', 'a', '', ''])
  })

  test('the flag T says that a message is in the trash', () => {
    expect(['a:2,ST', 'a:2,T', 'a:2,S', 'T', 'aT:2,', 'a'].map(isTrashed)).toEqual([
      true,
      true,
      false,
      false,
      false,
      false,
    ])
  })

  test('a name without flags gets flags', () => {
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
/**
 * As in a directory: no two files of a folder have the same name, and each file has a different
 * inode.
 */
const maildrop = fc
  .uniqueArray(message, { selector: ({ folder, name }) => `${folder}/${name}` })
  .map(files => files.map((file, inode): Message => ({ ...file, mtimeMs: file.mtime * 1000, inode })))

test('any two messages have an order, independent of their order in the directory', () => {
  fc.assert(
    fc.property(maildrop, messages => {
      const sorted = [...messages].sort(inMaildropOrder)
      expect([...messages].reverse().sort(inMaildropOrder)).toEqual(sorted)
      for (const [index, { mtime }] of sorted.entries())
        expect(mtime).toBeGreaterThanOrEqual(sorted[index - 1]?.mtime ?? 0)
    }),
  )
})

test('unique-ids are valid and unique, and equal qmail’s if those are valid and unique', () => {
  fc.assert(
    fc.property(maildrop, messages => {
      const ids = uniqueIds(messages, 'none')
      expect(new Set(ids).size).toBe(messages.length)
      for (const id of ids) expect(id).toMatch(/^[\x21-\x7e]{1,70}$/)
      for (const base of new Set(messages.map(({ name }) => baseNameOf(name)))) {
        if (/^[\x21-\x7e]{1,70}$/.test(base)) expect(ids).toContain(base)
      }
    }),
  )
})

test('a unique-id stays the same after a rename, and beside newer files with the same base name', () => {
  const renamed = fc.record({
    folder: fc.constantFrom('new' as const, 'cur' as const),
    flags: fc.constantFrom('', ':2,', ':2,RS'),
  })
  fc.assert(
    fc.property(maildrop, fc.array(renamed), fc.nat(), (messages, renames, cut) => {
      const ids = uniqueIds(messages, 'none')
      const later = messages.map((message, index): Message => {
        const to = renames[index]
        return to === undefined ? message : { ...message, folder: to.folder, name: baseNameOf(message.name) + to.flags }
      })
      expect(uniqueIds(later, 'none')).toEqual(ids)
      const youngest = messages.map(message => ({ ...message, mtime: 9, inode: message.inode + 1000 }))
      const more = [...messages, ...youngest.slice(0, cut % (messages.length + 1))]
      expect(uniqueIds(more, 'none').slice(0, messages.length)).toEqual(ids)
    }),
  )
})

test('with compat = "qmail" a unique-id is the base name, unless the base name has a line end', () => {
  fc.assert(
    fc.property(maildrop, messages => {
      for (const [index, id] of uniqueIds(messages, 'qmail').entries()) {
        const base = baseNameOf(messages[index]?.name ?? '')
        if (/[\r\n]/.test(base)) expect(id).toMatch(/^[0-9a-f]{64}$/)
        else expect(id).toBe(base)
      }
    }),
  )
})
