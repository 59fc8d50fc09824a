import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import { formatMessage, parseMessage } from '../../../../src/wire/workers/control-channel.ts'
import { parseReloadOrder, parseStartReport } from '../../../../src/wire/workers/supervised-program.ts'

const sent = (message: unknown): unknown => parseMessage(formatMessage(message).slice(0, -1))

describe('the report of a start', () => {
  property.prop([fc.string({ maxLength: 100 }), fc.array(fc.string({ maxLength: 100 }), { maxLength: 200 })])(
    'arrives unchanged',
    (text, lines) => {
      expect(parseStartReport(sent({ type: 'ready', text }))).toEqual({ type: 'ready', text })
      expect(parseStartReport(sent({ type: 'faults', lines }))).toEqual({ type: 'faults', lines })
    },
  )

  test.each([
    ['no text', { type: 'ready' }],
    ['a text that is too long', { type: 'ready', text: 'x'.repeat(16_385) }],
    ['a line that is a number', { type: 'faults', lines: ['a', 1] }],
    ['too many lines', { type: 'faults', lines: Array.from({ length: 201 }, () => '') }],
    ['an additional key', { type: 'ready', text: '', pid: 1 }],
    ['another type', { type: 'reload', files: {} }],
    ['a value that is not an object', 'ready'],
  ])('refuses %s', (_, message) => {
    expect(parseStartReport(message)).toBeUndefined()
  })
})

describe('the order to reload', () => {
  property.prop([fc.dictionary(fc.string({ maxLength: 30 }), fc.string({ maxLength: 100 }))])(
    'arrives unchanged',
    found => {
      const files = Object.fromEntries(Object.entries(found).filter(([path]) => path.startsWith('/')))
      expect(parseReloadOrder(sent({ type: 'reload', files }))).toEqual({ type: 'reload', files })
    },
  )

  test.each([
    [null],
    ['ping'],
    [{ type: 'reload' }],
    [{ type: 'reload', files: { a: 1 } }],
    [{ type: 'reload', files: {}, more: 1 }],
  ])('%j is not an order to reload', message => {
    expect(parseReloadOrder(message)).toBeUndefined()
  })
})
