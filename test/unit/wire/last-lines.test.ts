import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatLastLines, lastLineKey, parseLastLines } from '../../../src/wire/last-lines.ts'

describe('the file of last lines', () => {
  test('a source is named by its kind, and a file by its path too', () => {
    expect([lastLineKey('socket'), lastLineKey('file', '/var/log/mail.log')]).toEqual([
      'socket',
      'file:/var/log/mail.log',
    ])
  })

  test('is read as it was written; of a long line 300 characters stay', () => {
    const line = fc.record({ at: fc.nat(), text: fc.string({ maxLength: 300 }) })
    fc.assert(
      fc.property(fc.array(fc.tuple(fc.constantFrom('socket', 'fifo', 'tcp', 'file:/x'), line)), entries => {
        const lines = new Map(entries)
        expect(parseLastLines(formatLastLines(lines))).toEqual(lines)
      }),
    )
    const long = new Map([['tcp', { at: 1, text: 'x'.repeat(301) }]])
    expect(parseLastLines(formatLastLines(long)).get('tcp')).toEqual({ at: 1, text: 'x'.repeat(300) })
  })

  test.each(['', '{', 'null', '1', '"text"', '[]', '{}'])('%j has no lines', json => {
    expect([...parseLastLines(json)]).toEqual([])
  })

  test('an entry that cannot be read is left out, and the others stay', () => {
    const good = { at: 7, text: 'a line' }
    const bad = [null, 1, 'text', {}, { at: 7 }, { text: 'x' }, { at: '7', text: 'x' }, { at: 7, text: 7 }]
    const stored = { ...Object.fromEntries(bad.map((entry, index) => [`bad${index}`, entry])), good }
    expect([...parseLastLines(JSON.stringify(stored))]).toEqual([['good', good]])
    expect([...parseLastLines('{"tcp":{"at":1e999,"text":"x"}}')]).toEqual([])
  })
})
