import { createHmac, randomBytes } from 'node:crypto'
import { inspect } from 'node:util'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { KeyedHash } from '../../../src/base/keyed-hash.ts'

test('is HMAC-SHA256: RFC 4231, test case 2', () => {
  expect(new KeyedHash(Buffer.from('Jefe')).hex('what do ya want for nothing?')).toBe(
    '5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843',
  )
})

test('agrees with the runtime for any key and text, also for long ones and for several in a row', () => {
  const text = fc.oneof(
    fc.uint8Array({ maxLength: 200 }).map(octets => Buffer.from(octets).toString('latin1')),
    fc.integer({ min: 8100, max: 9000 }).map(length => 'ÿ'.repeat(length)),
  )
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 100 }), fc.array(text, { maxLength: 5 }), (key, texts) => {
      const keyed = new KeyedHash(key)
      for (const each of texts) {
        const expected = createHmac('sha256', key).update(each, 'latin1').digest('hex')
        expect(keyed.hex(each)).toBe(expected)
        expect(keyed.matches(each, expected)).toBe(true)
        expect(keyed.matches(`${each}x`, expected)).toBe(false)
        expect(keyed.matches(each, expected.slice(1))).toBe(false)
      }
    }),
  )
})

test('inspection does not show the key', () => {
  const key = randomBytes(32)
  expect(inspect(new KeyedHash(key), { depth: 9, showHidden: true })).not.toContain(key.toString('hex').slice(0, 8))
})
