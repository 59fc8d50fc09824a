import fc from 'fast-check'
import { expect, test } from 'vitest'
import { TopLimit } from '../../../src/pop3d/encoding/send-message.ts'

/**
 * The rule in its simplest form: lines up to and including the first empty line, and `bodyLines`
 * more (RFC 1939 §7).
 */
function topOf(file: string, bodyLines: number, crIsEmpty: boolean): string {
  const lines = file.match(/[^\n]*\n|[^\n]+$/g) ?? []
  const isEmpty = (line: string) => line === '\n' || (crIsEmpty && line === '\r\n')
  const header = lines.findIndex(isEmpty)
  return (header < 0 ? lines : lines.slice(0, header + 1 + bodyLines)).join('')
}

test('returns the header and the given number of lines, for all pieces of the file', () => {
  const text = fc.array(fc.constantFrom('\n', '\r\n', '\r', 'x', 'y: z', '\n\n', '\r\n\r\n'), { maxLength: 40 })
  fc.assert(
    fc.property(text, fc.array(fc.nat(80)), fc.nat(6), fc.boolean(), (parts, cuts, bodyLines, crIsEmpty) => {
      const file = parts.join('')
      const limit = new TopLimit(bodyLines, crIsEmpty)
      const ends = [...cuts.filter(cut => cut < file.length).sort((a, b) => a - b), file.length]
      let taken = ''
      for (const [index, end] of ends.entries()) {
        const chunk = Buffer.from(file.slice(ends[index - 1] ?? 0, end), 'latin1')
        const wanted = limit.take(chunk)
        taken += chunk.toString('latin1', 0, wanted)
        if (wanted < chunk.length) break
      }
      expect(taken).toBe(topOf(file, bodyLines, crIsEmpty))
    }),
    { numRuns: 1000 },
  )
})
