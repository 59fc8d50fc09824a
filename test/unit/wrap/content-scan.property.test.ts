import { fc, test } from '@fast-check/vitest'
import { expect } from 'vitest'
import { type Content, StrictContent } from '../../../src/smtp/content.ts'
import { scanContent } from '../../../src/wrap/front/content-scan.ts'

const piece = fc.constantFrom('\r', '\n', '.', '\0', '\r\n', '\r\n.', '\r\n.\r\n', 'a', '\r\r\n', '\n.\n')
/** Text that is long enough for the scan of whole blocks, with such a piece at any place in it. */
const longText = fc
  .array(fc.tuple(fc.constantFrom('', 'x', 'fifteen octets.', 'x'.repeat(50), 'a line of text\r\n'.repeat(4)), piece), {
    maxLength: 12,
  })
  .map(pieces => pieces.flat().join(''))
const cuts = fc.array(fc.nat(400), { maxLength: 8 })

function pass(content: Content, input: string, at: readonly number[] = []) {
  let output = ''
  let begin = 0
  for (const end of [...at.filter(place => place < input.length), input.length].sort((a, b) => a - b)) {
    const { state, taken } = content.push(Buffer.from(input.slice(begin, end), 'latin1'), octets => {
      output += Buffer.from(octets).toString('latin1')
    })
    if (state !== 'more') return { output, state, rest: input.slice(begin + taken) }
    begin = end
  }
  return { output, state: 'more', rest: '' }
}

test('the scan in WebAssembly is used', () => {
  expect(scanContent(Buffer.from('sixteen octets..and some'), 0, 0x0a)).toBe(16)
})

test.prop([longText, cuts])('the scan of blocks gives the same result', (input, at) => {
  expect(pass(new StrictContent(scanContent), input, at)).toEqual(pass(new StrictContent(), input))
})

test('every octet in a block is found', () => {
  for (let octet = 0; octet < 256; octet += 1)
    for (let at = 0; at < 48; at += 1) {
      const input = `${'x'.repeat(at)}${String.fromCharCode(octet)}${'\r\n'.repeat(24)}`
      expect([octet, at, pass(new StrictContent(scanContent), input)]).toEqual([
        octet,
        at,
        pass(new StrictContent(), input),
      ])
    }
})

test('more than one scan covers the whole of a large input', () => {
  const lines = `${'x'.repeat(76)}\r\n`.repeat(2000)
  expect(pass(new StrictContent(scanContent), `${lines}.\r\nQUIT\r\n`)).toEqual({
    output: `${lines}.\r\n`,
    state: 'end',
    rest: 'QUIT\r\n',
  })
  expect(pass(new StrictContent(scanContent), `${lines}bare\n`)).toEqual({
    output: `${lines}bare`,
    state: 'violation',
    rest: '\n',
  })
})
