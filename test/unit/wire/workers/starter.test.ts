import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import {
  formatStarterOrder,
  formatStarterReply,
  formatStrings,
  MAX_STARTER_BLOCK,
  MAX_STARTER_LINE,
  parseStarterOrder,
  parseStarterReply,
  parseStrings,
  type StarterOrder,
  type StarterReply,
} from '../../../../src/wire/workers/starter.ts'

const number = fc.nat({ max: 999_999_999_999_999 })
const octets = fc.nat({ max: MAX_STARTER_BLOCK })
const pid = fc.integer({ min: 2, max: 2 ** 31 - 1 })
const literal = <Type extends string>(type: Type) => fc.constant(type)

const order: fc.Arbitrary<StarterOrder> = fc.oneof(
  fc.record({ type: literal('program'), args: number, files: number, octets }),
  fc.record({ type: literal('start'), n: number, without: number, octets }),
  fc.record({ type: literal('kill'), pid }),
  fc.record({ type: literal('ping'), n: number }),
)
const replies: fc.Arbitrary<StarterReply> = fc.oneof(
  fc.constant({ type: 'ready' } as const),
  fc.record({ type: literal('started'), n: number, pid }),
  fc.record({ type: literal('failed'), n: number, errno: number }),
  fc.record({ type: literal('ended'), pid, status: fc.nat({ max: 255 }) }),
  fc.record({ type: literal('ended'), pid, signal: fc.nat({ max: 127 }) }),
  fc.record({ type: literal('pong'), n: number }),
)

describe('messages between gate and starter', () => {
  property.prop([order])('an order is a short line, and is parsed back', value => {
    const line = formatStarterOrder(value)
    expect(line.length).toBeLessThanOrEqual(MAX_STARTER_LINE)
    expect(parseStarterOrder(line)).toEqual(value)
  })
  property.prop([replies])('a reply of a starter is a short line, and is parsed back', value => {
    const line = formatStarterReply(value)
    expect(line.length).toBeLessThanOrEqual(MAX_STARTER_LINE)
    expect(parseStarterReply(line)).toEqual(value)
  })
  const digits = fc.oneof(fc.nat({ max: 300 }).map(String), fc.constantFrom('', '0', '01', '+1', '-1', '1 ', '1e3'))
  const end = fc.tuple(fc.constantFrom('', ' n=', ' pid=', ' status=', ' without=0 octets=', ' x='), digits)
  const nearMiss = fc
    .tuple(
      fc.constantFrom('start', 'kill', 'ping', 'started', 'ended', 'pong', 'ready', 'no'),
      fc.array(end, { maxLength: 2 }),
    )
    .map(([word, ends]) => word + ends.flat().join(''))
  property.prop([fc.oneof(fc.string(), nearMiss)], { numRuns: 2000 })(
    'any other text is neither an order nor a reply',
    text => {
      const [asOrder, asReply] = [parseStarterOrder(text), parseStarterReply(text)]
      expect(asOrder === undefined ? text : formatStarterOrder(asOrder)).toBe(text)
      expect(asReply === undefined ? text : formatStarterReply(asReply)).toBe(text)
    },
  )

  test('some near misses of that property are accepted', () => {
    const read = fc
      .sample(nearMiss, 2000)
      .filter(text => (parseStarterOrder(text) ?? parseStarterReply(text)) !== undefined)
    expect(read.length).toBeGreaterThan(10)
  })

  test.each([
    { type: 'program', args: 0, files: 1024, octets: MAX_STARTER_BLOCK },
    { type: 'start', n: 1, without: 0, octets: MAX_STARTER_BLOCK },
    { type: 'kill', pid: 2 },
    { type: 'kill', pid: 2 ** 31 - 1 },
  ] as const)('%j is at the bound of an order', value => {
    expect(parseStarterOrder(formatStarterOrder(value))).toEqual(value)
  })

  test.each([
    'kill pid=0',
    'kill pid=1',
    'kill pid=-7',
    'kill pid=2147483648',
    `start n=1 without=0 octets=${MAX_STARTER_BLOCK + 1}`,
    `program args=0 files=1024 octets=${MAX_STARTER_BLOCK + 1}`,
    'start n=01 without=0 octets=0',
    'ping n=1 ',
    '',
  ])('not a line of a gate: %s', line => expect(parseStarterOrder(line)).toBeUndefined())

  test.each([
    'started n=1 pid=0',
    'started n=1 pid=1',
    'ended pid=9 status=256',
    'ended pid=9 signal=128',
    'ready ',
    '',
  ])('not a line of a starter: %s', line => expect(parseStarterReply(line)).toBeUndefined())

  const withoutNul = fc.oneof(
    fc.uint8Array().map(octets => octets.map(octet => octet || 1)),
    fc.string({ unit: 'binary' }).map(text => text.toWellFormed().replaceAll('\0', '')),
  )
  property.prop([fc.oneof(fc.array(withoutNul), fc.array(fc.constantFrom('', 'A=1', 'B=ü')))])(
    'strings keep their octets, whether they are texts or octets',
    strings => {
      expect(parseStrings(formatStrings(strings))).toEqual(strings.map(string => Buffer.from(string)))
    },
  )
  test('a string with a NUL is invalid, and a block ends with one', () => {
    expect(() => formatStrings(['a\0b'])).toThrow(new TypeError('a NUL cannot stand in a string of a program'))
    expect(() => formatStrings([Uint8Array.of(0)])).toThrow(TypeError)
    expect(parseStrings(Buffer.from('A=1\0B=2'))).toBeUndefined()
    expect(parseStrings(Buffer.from('A=1\0\0'))).toEqual([Buffer.from('A=1'), Buffer.alloc(0)])
  })
})
