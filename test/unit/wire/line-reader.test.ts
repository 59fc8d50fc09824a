import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { COMMAND_LINE_LIMIT } from '../../../src/pop3/command.ts'
import { type Line, LineReader } from '../../../src/wire/lines.ts'

/** Feeds the chunks as a session does: push, take every line, push again. */
function linesOf(chunks: readonly Uint8Array[], limit = COMMAND_LINE_LIMIT): Line[] {
  const reader = new LineReader()
  const lines: Line[] = []
  for (const chunk of chunks) {
    reader.push(chunk)
    for (let line = reader.next(limit); line !== undefined; line = reader.next(limit)) lines.push(line)
  }
  return lines
}

const bytes = (text: string) => Buffer.from(text, 'latin1')
const line = (text: string): Line => ({ kind: 'line', text })

describe('LineReader', () => {
  test('ends a line at CRLF and at a bare LF, and drops one CR only', () => {
    expect(linesOf([bytes('STAT\r\nLIST\nA\rB\r\r\n\n')])).toEqual([
      line('STAT'),
      line('LIST'),
      line('A\rB\r'),
      line(''),
    ])
  })

  test('keeps every octet', () => {
    const all = Buffer.from(Array.from({ length: 255 }, (_, index) => index + 1).filter(octet => octet !== 10))
    expect(linesOf([Buffer.concat([all, bytes('\n')])])).toEqual([line(all.toString('latin1'))])
  })

  test('accepts a line of exactly the limit and refuses one octet more, up to its LF', () => {
    const longest = 'x'.repeat(COMMAND_LINE_LIMIT - 2)
    expect(linesOf([bytes(`${longest}\r\nx${longest}\r\nNOOP\r\n`)])).toEqual([
      line(longest),
      { kind: 'tooLong' },
      line('NOOP'),
    ])
  })

  test('keeps no more than the limit of an endless line', () => {
    const reader = new LineReader()
    for (let megabyte = 0; megabyte < 8; megabyte += 1) {
      reader.push(new Uint8Array(1 << 20).fill(0x78))
      expect(reader.next(COMMAND_LINE_LIMIT)).toBeUndefined()
    }
    expect(reader.rest().length).toBeLessThanOrEqual(COMMAND_LINE_LIMIT)
  })

  test('reports a NUL', () => {
    expect(linesOf([bytes('USER a\0b\r\nNOOP\r\n')])).toEqual([{ kind: 'holdsNul' }, line('NOOP')])
  })

  test('returns the octets after the last line taken', () => {
    const reader = new LineReader()
    reader.push(bytes('PASS x\r\nSTAT\r\nRE'))
    expect(reader.next(COMMAND_LINE_LIMIT)).toEqual(line('PASS x'))
    expect(Buffer.from(reader.rest()).toString()).toBe('STAT\r\nRE')
    expect(reader.next(COMMAND_LINE_LIMIT)).toBeUndefined()
  })

  test('finds the same lines for any pieces of the input', () => {
    const octet = fc.constantFrom(0, 10, 10, 13, 13, 65, 66, 32, 255)
    fc.assert(
      fc.property(
        fc.array(octet, { maxLength: 200 }),
        fc.array(fc.nat(200)),
        fc.integer({ min: 1, max: 40 }),
        (octets, cuts, limit) => {
          const input = Uint8Array.from(octets)
          const ends = [...cuts.filter(cut => cut < input.length).sort((a, b) => a - b), input.length]
          const chunks = ends.map((end, index) => input.subarray(ends[index - 1] ?? 0, end))
          expect(linesOf(chunks, limit)).toEqual(linesOf([input], limit))
        },
      ),
    )
  })
})

describe('octets of a LineReader', () => {
  test('a line as it came, and the octets after it', () => {
    const reader = new LineReader()
    reader.push(bytes('start octets=5\nab'))
    expect(reader.take(20)?.toString()).toBe('start octets=5\n')
    expect(reader.takeOctets(5)).toBeUndefined()
    reader.push(bytes('\ncdnext\r\n'))
    expect(reader.takeOctets(5)?.toString()).toBe('ab\ncd')
    expect(reader.takeOctets(0)?.toString()).toBe('')
    expect(reader.take(6)?.toString()).toBe('next\r\n')
    expect([reader.pending.length, reader.take(6), reader.takeOctets(1)]).toEqual([0, undefined, undefined])
  })

  test('takeOctets returns all octets, and never fewer than requested', () => {
    const reader = new LineReader()
    reader.push(bytes('abc'))
    expect(reader.takeOctets(4)).toBeUndefined()
    expect(reader.takeOctets(3)?.toString()).toBe('abc')
    expect(reader.pending.length).toBe(0)
  })

  test('the limit counts the unfinished line alone, not the lines before it', () => {
    const reader = new LineReader()
    reader.push(bytes('12345\nabc'))
    expect(reader.take(6)?.toString()).toBe('12345\n')
    expect([reader.take(6), reader.isDiscarding, reader.pending.toString()]).toEqual([undefined, false, 'abc'])
  })

  test('the memory of a large chunk is released after its lines, and with an unfinished line', () => {
    const chunk = (end: string) => Buffer.from(new Uint8Array(Buffer.from(`${'x'.repeat(9999)}\n${end}`)).buffer)
    const kept = (reader: LineReader) => reader.pending.buffer.byteLength
    const unfinished = new LineReader()
    unfinished.push(chunk('abc'))
    unfinished.take(10_000)
    expect([unfinished.take(100), unfinished.pending.toString()]).toEqual([undefined, 'abc'])
    expect(kept(unfinished)).toBeLessThanOrEqual(400)
    const [line, octets] = [new LineReader(), new LineReader()]
    line.push(chunk(''))
    expect([line.take(10_000)?.length, kept(line)]).toEqual([10_000, 0])
    octets.push(chunk(''))
    expect([octets.takeOctets(10_000)?.length, kept(octets)]).toEqual([10_000, 0])
  })

  test('a line that is too long is found before its end, and its octets are discarded', () => {
    const reader = new LineReader()
    reader.push(bytes('12345'))
    expect([reader.take(6), reader.isDiscarding]).toEqual([undefined, false])
    reader.push(bytes('6'))
    expect([reader.take(6), reader.isDiscarding, reader.pending.length]).toEqual([undefined, true, 0])
    reader.push(bytes('7\nnext\n'))
    expect([reader.take(6), reader.isDiscarding]).toEqual(['tooLong', false])
    expect(reader.take(6)?.toString()).toBe('next\n')
  })
})
