import { execFileSync } from 'node:child_process'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { Cdb, CdbDamaged, formatCdb } from '../../../src/wire/cdb.ts'

const keys = fc.uint8Array({ maxLength: 30 }).map(octets => Buffer.from(octets).toString('latin1'))
const records = fc.array(fc.record({ key: keys, value: fc.uint8Array({ maxLength: 30 }) }), { maxLength: 60 })

test('a written record is found: the first of several, and all in order', () => {
  fc.assert(
    fc.property(records, list => {
      const cdb = new Cdb(formatCdb(list))
      expect([...cdb.records()].map(r => [r.key, ...r.value])).toEqual(list.map(r => [r.key, ...r.value]))
      for (const { key } of list) {
        const first = list.find(other => other.key === key)
        expect(cdb.get(key)).toEqual(Buffer.from(first?.value ?? []))
      }
    }),
  )
})

test('a missing record is not found', () => {
  fc.assert(
    fc.property(records, keys, (list, key) => {
      fc.pre(!list.some(record => record.key === key))
      expect(new Cdb(formatCdb(list)).get(key)).toBeUndefined()
    }),
  )
})

test('a damaged file is an error or a miss, never a crash or an endless search', () => {
  fc.assert(
    fc.property(records, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 8 }), keys, (list, damage, key) => {
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

describe('a length behind the end of the file is an error', () => {
  const RECORD = 2048
  const file = () => formatCdb([{ key: 'one', value: Buffer.from('Hello') }])

  test.each([
    ['of a key', RECORD],
    ['of a value', RECORD + 4],
  ])('%s', (_, at) => {
    const damaged = file()
    damaged.writeUInt32LE(damaged.length, at)
    expect(() => new Cdb(damaged).get('one')).toThrow(CdbDamaged)
    expect(() => [...new Cdb(damaged).records()]).toThrow(CdbDamaged)
  })

  test('and a value may end with the file', () => {
    const whole = file()
    const begin = RECORD + 8 + 'one'.length
    whole.writeUInt32LE(whole.length - begin, RECORD + 4)
    expect(new Cdb(whole).get('one')?.length).toBe(whole.length - begin)
  })
})

describe('the slots of a table', () => {
  const key = 'one'
  /** A cdb of one record, whose table has two slots; `slot` is that of the record. */
  const cdbOf = () => {
    const file = formatCdb([{ key, value: Buffer.from('Hello') }])
    const table = file.length - 16
    const first = file.readUInt32LE(table + 4) === 0 ? 1 : 0
    return { file, slot: table + first * 8, other: table + (1 - first) * 8 }
  }

  test('a slot with another hash is not the record, at the same position', () => {
    const { file, slot } = cdbOf()
    file.writeUInt32LE(file.readUInt32LE(slot) + 1, slot)
    expect(new Cdb(file).get(key)).toBeUndefined()
  })

  test('an empty slot ends the search', () => {
    const { file, slot, other } = cdbOf()
    file.copy(file, other, slot, slot + 8)
    expect(new Cdb(file).get(key)?.toString()).toBe('Hello')
    file.fill(0, slot, slot + 8)
    expect(new Cdb(file).get(key)).toBeUndefined()
  })

  test('a table without an empty slot is searched once', () => {
    const { file, slot, other } = cdbOf()
    file.writeUInt32LE(1, slot)
    file.copy(file, other, slot, slot + 8)
    expect(new Cdb(file).get(key)).toBeUndefined()
  })

  test('two keys with the same hash are two records', () => {
    const records = [' a', '!@'].map(text => ({ key: text, value: Buffer.from(`of ${text}`) }))
    const both = new Cdb(formatCdb(records))
    expect(both.get(' a')?.toString()).toBe('of  a')
    expect(both.get('!@')?.toString()).toBe('of !@')
    expect(new Cdb(formatCdb(records.slice(0, 1))).get('!@')).toBeUndefined()
  })
})

test('each of more records than tables is found', () => {
  const texts = ['a', 'A', 'ab', 'zz', '0', '00', 'key', ''].flatMap(prefix =>
    Array.from({ length: 40 }, (_, n) => `${prefix}${n}`),
  )
  const list = texts.map((key, n) => ({ key, value: Buffer.from(`${n}`) }))
  const cdb = new Cdb(formatCdb(list))
  for (const { key } of list) {
    const first = list.find(other => other.key === key)
    expect(cdb.get(key)?.toString()).toBe(first?.value.toString())
  }
  expect(cdb.get('missing')).toBeUndefined()
})

test('an empty file has its tables alone, and no record', () => {
  const file = formatCdb([])
  expect(file.length).toBe(2048)
  const cdb = new Cdb(file)
  expect([cdb.get('a'), [...cdb.records()]]).toEqual([undefined, []])
})

test('a fault of a file has a message', () => {
  const fault = (message: string) => expect.objectContaining({ name: 'CdbDamaged', message })
  expect(() => new Cdb(Buffer.alloc(2047))).toThrow(fault('a cdb has at least 2048 octets, this file has 2047'))
  const file = formatCdb([{ key: 'one', value: Buffer.from('Hello') }])
  const cut = new Cdb(file.subarray(0, -1))
  expect(() => cut.get('one')).toThrow(fault('a position points behind the end of the cdb'))
  expect([...cut.records()].map(({ value }) => Buffer.from(value).toString())).toEqual(['Hello'])
})

test('a cdb above 4 GiB is not made', () => {
  const value = new Uint8Array(2 ** 20)
  const list = Array.from({ length: 4096 }, () => ({ key: '', value }))
  expect(() => formatCdb(list)).toThrow(new RangeError('a cdb holds at most 4 GiB, not 4295067648 octets'))
})

test('the hash is that of the format: a file with known octets', () => {
  // `one`: 5381*33^3 ... lies in table 0x7c; calculated by hand from the description of the format.
  const file = formatCdb([{ key: 'one', value: Buffer.from('Hello') }])
  expect(file.length).toBe(2048 + 8 + 8 + 16)
  const reference = execFileSync('perl', [
    '-e',
    'my $h=5381; $h = ((($h << 5) + $h) ^ ord) & 0xffffffff for split //, "one"; print $h',
  ]).toString()
  expect(file.readUInt32LE((Number(reference) % 256) * 8 + 4)).toBe(2)
})
