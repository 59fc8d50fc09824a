import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  formatHandoff,
  formatHandoffReply,
  MAX_READ_AHEAD,
  parseHandoff,
  parseHandoffReply,
} from '../../../../src/wire/workers/maildrop-worker.ts'

describe('handoff', () => {
  test('is parsed back', () => {
    expect(formatHandoff({ n: 17, octets: 6, ticket: 'session v=1 id=7f3a.12' })).toBe(
      'handoff n=17 octets=6 session v=1 id=7f3a.12',
    )
    const handoff = fc.record({
      n: fc.integer({ min: 1, max: 999_999_999_999_999 }),
      octets: fc.integer({ min: 0, max: MAX_READ_AHEAD }),
      ticket: fc.stringMatching(/^[\x20-\x7e]+$/),
    })
    fc.assert(
      fc.property(handoff, value => {
        expect(parseHandoff(formatHandoff(value))).toEqual(value)
      }),
    )
  })

  test.each([
    '',
    'handoff',
    'handoff n=0 octets=0 t',
    'handoff n=01 octets=0 t',
    'handoff n=1 octets=-1 t',
    `handoff n=1 octets=${MAX_READ_AHEAD + 1} t`,
    'handoff n=1 octets=0 ',
    'handoff n=1  octets=0 t',
    'Handoff n=1 octets=0 t',
    'xhandoff n=1 octets=0 t',
    'handoff n=1 octets=0 t\nt',
    'handoff n=1234567890123456 octets=0 t',
  ])('%j is invalid', line => {
    expect(parseHandoff(line)).toBeUndefined()
  })
})

describe('messages of a worker', () => {
  test.each([
    { type: 'open' },
    { type: 'closing' },
    { type: 'ended', n: 1 },
    { type: 'ended', n: 999_999_999_999_999 },
  ] as const)('%j is parsed back', reply => {
    expect(parseHandoffReply(formatHandoffReply(reply))).toEqual(reply)
  })

  test.each([
    '',
    'handoff-channel v=2',
    'closing ',
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
