import { fc, test } from '@fast-check/vitest'
import { describe, expect, it } from 'vitest'
import { LineSplitter } from '../../../src/wire/lines.ts'

/** All lines that a splitter with this limit finds in the chunks. */
function split(limit: number, chunks: readonly Buffer[]): { lines: string[]; overlong: number; unfinished: boolean } {
  const splitter = new LineSplitter(limit)
  const lines: string[] = []
  let overlong = 0
  for (const chunk of chunks) {
    const parts = splitter.push(chunk)
    lines.push(...parts.lines)
    overlong += parts.overlong
    expect(splitter.pending).toBeLessThanOrEqual(limit)
    chunk.fill(0x0a) // the chunk is the reader's buffer and is used again
  }
  return { lines, overlong, ...splitter.end() }
}

describe('LineSplitter', () => {
  it('returns lines without LF; CR, NUL and invalid UTF-8 stay', () => {
    const octets = Buffer.from([0x61, 0x0d, 0x0a, 0x0a, 0x00, 0x0a, 0xff, 0x0a, 0x62])
    expect(split(10, [octets])).toEqual({ lines: ['a\r', '', '\0', '\uFFFD'], overlong: 0, unfinished: true })
  })

  it('drops a line above the limit completely, up to its LF', () => {
    expect(split(3, [Buffer.from('abc\nabcd\nab')])).toEqual({ lines: ['abc'], overlong: 1, unfinished: true })
    expect(
      split(
        3,
        ['ab', 'cdefg', 'hij', 'k\nxyz\n'].map(text => Buffer.from(text)),
      ),
    ).toEqual({
      lines: ['xyz'],
      overlong: 1,
      unfinished: false,
    })
  })

  it('reports an unfinished line that is too long, and keeps no octet of it', () => {
    const splitter = new LineSplitter(3)
    splitter.push(Buffer.from('abc'))
    expect([splitter.isOverlong, splitter.pending]).toEqual([false, 3])
    for (const more of ['d', 'e']) {
      splitter.push(Buffer.from(more))
      expect([splitter.isOverlong, splitter.pending]).toEqual([true, 0])
    }
    splitter.push(Buffer.from('\nx'))
    expect([splitter.isOverlong, splitter.pending]).toEqual([false, 1])
  })

  it('drops everything at the end of a stream', () => {
    const splitter = new LineSplitter(100)
    splitter.push(Buffer.from('half'))
    expect(splitter.end()).toEqual({ unfinished: true })
    expect(splitter.push(Buffer.from('x\n')).lines).toEqual(['x'])
  })

  test.prop([
    fc.array(fc.uint8Array({ maxLength: 30 }).map(octets => octets.map(octet => (octet < 40 ? 0x0a : octet)))),
    fc.nat({ max: 20 }),
  ])('finds the same lines for any pieces', (pieces, limit) => {
    const whole = Buffer.concat(pieces)
    const bytes = [...whole].map(octet => Buffer.from([octet]))
    const once = split(limit, [Buffer.from(whole)])
    expect(split(limit, bytes)).toEqual(once)
    expect(
      split(
        limit,
        pieces.map(piece => Buffer.from(piece)),
      ),
    ).toEqual(once)
  })
})
