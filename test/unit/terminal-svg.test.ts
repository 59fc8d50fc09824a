import { expect, test } from 'vitest'
import { terminalSvg } from '../../scripts/generate/terminal-svg.ts'

/** The visible text of the picture, row by row, with ordinary spaces. */
const rowsOf = (svg: string): readonly string[] =>
  [...svg.slice(svg.indexOf('<g ')).matchAll(/<text [^>]*>(.*)<\/text>/g)].map(([, text = '']) =>
    text.replaceAll(/<[^>]*>/g, '').replaceAll('\u00a0', ' '),
  )

test('typed lines have a prompt, output has none; columns stay aligned', () => {
  const svg = terminalSvg('a & b', [
    { type: 'typed', text: 'swaks --to "x"' },
    { type: 'printed', text: '<-  250  ok' },
  ])
  expect(rowsOf(svg)).toEqual(['$ swaks --to &quot;x&quot;', '&lt;-  250  ok'])
  expect(svg).toContain('aria-label="a&nbsp;&amp;&nbsp;b"'.replaceAll('&nbsp;', '\u00a0'))
})

test('long lines are folded: a command at a space, so that it can be copied; output at any place', () => {
  const typed = terminalSvg('', [{ type: 'typed', text: 'one two three four' }], 12)
  expect(rowsOf(typed)).toEqual(['$ one two \\', '    three \\', '    four'])
  const printed = terminalSvg('', [{ type: 'printed', text: '123456789012345' }], 12)
  expect(rowsOf(printed)).toEqual(['123456789012', '345'])
})

test('no control character reaches the picture', () => {
  expect(rowsOf(terminalSvg('', [{ type: 'printed', text: 'a\u001b[31mb\u0007' }]))).toEqual(['a[31mb'])
})
