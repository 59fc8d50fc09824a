import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  formatHandoffReply,
  formatTake,
  MAX_READ_AHEAD,
  parseHandoffReply,
  parseTake,
} from '../../../../src/wire/workers/maildrop-worker.ts'

describe('take', () => {
  test('is parsed back', () => {
    expect(formatTake({ n: 17, octets: 6, ticket: 'session v=1 id=7f3a.12' })).toBe(
      'take n=17 octets=6 session v=1 id=7f3a.12',
    )
    const take = fc.record({
      n: fc.integer({ min: 1, max: 999_999_999_999_999 }),
      octets: fc.integer({ min: 0, max: MAX_READ_AHEAD }),
      ticket: fc.stringMatching(/^[\x20-\x7e]+$/),
    })
    fc.assert(
      fc.property(take, value => {
        expect(parseTake(formatTake(value))).toEqual(value)
      }),
    )
  })

  test.each([
    '',
    'take',
    'take n=0 octets=0 t',
    'take n=01 octets=0 t',
    'take n=1 octets=-1 t',
    `take n=1 octets=${MAX_READ_AHEAD + 1} t`,
    'take n=1 octets=0 ',
    'take n=1  octets=0 t',
    'Take n=1 octets=0 t',
    'xtake n=1 octets=0 t',
    'take n=1 octets=0 t\nt',
    'take n=1234567890123456 octets=0 t',
  ])('%j is invalid', line => {
    expect(parseTake(line)).toBeUndefined()
  })
})

describe('messages of a worker', () => {
  test.each([
    { type: 'open' },
    { type: 'bye' },
    { type: 'ended', n: 1 },
    { type: 'ended', n: 999_999_999_999_999 },
  ] as const)('%j is parsed back', reply => {
    expect(parseHandoffReply(formatHandoffReply(reply))).toEqual(reply)
  })

  test.each([
    '',
    'link v=2',
    'bye ',
    'ended',
    'ended n=0',
    'ended n=1 ',
    'xended n=1',
    'ended n=x',
    'ended n=1234567890123456',
  ])('%j is invalid', line => {
    expect(parseHandoffReply(line)).toBeUndefined()
  })
})
