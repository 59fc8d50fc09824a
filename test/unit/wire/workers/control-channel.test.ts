import { fc, test as property } from '@fast-check/vitest'
import * as v from 'valibot'
import { describe, expect, test } from 'vitest'
import {
  formatMessage,
  parseMessage,
  readMessage,
  requireMessage,
} from '../../../../src/wire/workers/control-channel.ts'

const order = v.variant('type', [
  v.strictObject({ type: v.literal('start'), key: v.pipe(v.string(), v.regex(/^[0-9a-f]{8}$/)) }),
  v.strictObject({ type: v.literal('end') }),
])

describe('a line of the control channel', () => {
  property.prop([fc.jsonValue({ noUnicodeString: false })])('holds one message with any text', message => {
    const line = formatMessage(message)
    expect(line.indexOf('\n')).toBe(line.length - 1)
    expect(parseMessage(line.slice(0, -1))).toEqual(JSON.parse(JSON.stringify(message)))
  })

  test.each(['', '{', '{"type":"start"', 'ping', 'undefined', '{} {}'])('%j is not a message', line => {
    expect(parseMessage(line)).toBeUndefined()
  })
})

test('readMessage takes a message of the schema and no other', () => {
  expect(readMessage(order, { type: 'end' })).toEqual({ type: 'end' })
  expect(readMessage(order, { type: 'end', more: 1 })).toBeUndefined()
  expect(readMessage(order, null)).toBeUndefined()
})

describe('a message with a thousand faults', () => {
  /** A list of texts, and the number of texts that were checked. */
  const counted = () => {
    let count = 0
    const item = v.pipe(
      v.string(),
      v.check(() => {
        count += 1
        return false
      }),
    )
    return { list: v.array(item), checked: () => count }
  }
  const message = Array.from({ length: 1000 }, () => 'x')

  test('is refused at the first fault', () => {
    const { list, checked } = counted()
    expect(readMessage(list, message)).toBeUndefined()
    expect(checked()).toBe(1)
  })

  test('is refused at the first fault by requireMessage', () => {
    const { list, checked } = counted()
    expect(() => requireMessage(list, message)).toThrow(/field: 0/)
    expect(checked()).toBe(1)
  })
})

describe('requireMessage', () => {
  test('names the field of a message of another version, and keeps its value secret', () => {
    const secret = 'not hexadecimal: a key'
    expect(() => requireMessage(order, { type: 'start', key: secret })).toThrow(/field: key/)
    expect(() => requireMessage(order, { type: 'start', key: secret })).not.toThrow(new RegExp(secret))
  })

  test.each([[null], ['ping'], [{}], [{ type: 'restart' }]])(
    'names the field type if %j has no known type',
    message => {
      expect(() => requireMessage(order, message)).toThrow(/field: type/)
    },
  )
})
