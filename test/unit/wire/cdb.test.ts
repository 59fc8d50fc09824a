import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Cdb, CdbDamaged, formatCdb } from '../../../src/wire/cdb.ts'

const bytes = fc.uint8Array({ maxLength: 30 })
const records = fc.array(fc.record({ key: bytes, value: bytes }), { maxLength: 60 })

test('a written record is found: the first of several, and all in order', () => {
  fc.assert(
    fc.property(records, list => {
      const cdb = new Cdb(formatCdb(list))
      expect([...cdb.records()].map(r => [...r.key, -1, ...r.value])).toEqual(list.map(r => [...r.key, -1, ...r.value]))
      for (const { key } of list) {
        const first = list.find(other => Buffer.from(other.key).equals(key))
        expect(cdb.get(key)).toEqual(Buffer.from(first?.value ?? []))
      }
    }),
  )
})

test('a missing record is not found', () => {
  fc.assert(
    fc.property(records, bytes, (list, key) => {
      fc.pre(!list.some(record => Buffer.from(record.key).equals(key)))
      expect(new Cdb(formatCdb(list)).get(key)).toBeUndefined()
    }),
  )
})

test('a damaged file is an error or a miss, never a crash or an endless search', () => {
  fc.assert(
    fc.property(records, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }), bytes, (list, damage, key) => {
      const file = formatCdb(list)
      for (const [position, octet] of damage) file[position % file.length] = octet
      try {
        new Cdb(file).get(list[0]?.key ?? key)
      } catch (error) {
        expect(error).toBeInstanceOf(CdbDamaged)
      }
    }),
  )
  expect(() => new Cdb(Buffer.alloc(2047))).toThrow(CdbDamaged)
})

test('the hash is that of the format: a file with known octets', () => {
  // `one`: 5381*33^3 ... lies in table 0x7c; calculated by hand from the description of the format.
  const file = formatCdb([{ key: Buffer.from('one'), value: Buffer.from('Hello') }])
  expect(file.length).toBe(2048 + 8 + 8 + 16)
  const reference = execFileSync('perl', [
    '-e',
    'my $h=5381; $h = ((($h << 5) + $h) ^ ord) & 0xffffffff for split //, "one"; print $h',
  ]).toString()
  expect(file.readUInt32LE((Number(reference) % 256) * 8 + 4)).toBe(2)
})
