import { fc, test } from '@fast-check/vitest'
import { describe, expect } from 'vitest'
import { type Content, RepairedContent, StrictContent } from '../../../src/smtp/content.ts'

/** Octets in which every form of a line end or of a message's end is likely. */
const piece = fc.constantFrom('\r', '\n', '.', '\0', '\r\n', '\r\n.', '\r\n.\r\n', 'a', ' ', '\r\r\n', '\n.\n', 'RSET')
const text = fc.array(piece, { maxLength: 40 }).map(pieces => pieces.join(''))
const cuts = fc.array(fc.nat(60), { maxLength: 8 })

type Passed = { readonly output: string; readonly state: 'more' | 'end' | 'violation'; readonly rest: string }

function pass(content: Content, input: string, at: readonly number[] = []): Passed {
  let output = ''
  const places = [...at.filter(place => place < input.length), input.length].sort((a, b) => a - b)
  let begin = 0
  for (const end of places) {
    const { state, taken } = content.push(Buffer.from(input.slice(begin, end), 'latin1'), octets => {
      output += Buffer.from(octets).toString('latin1')
    })
    if (state !== 'more') return { output, state, rest: input.slice(begin + taken) }
    begin = end
  }
  return { output, state: 'more', rest: '' }
}

/**
 * The place at which a server with such a parser ends a message within the octets; -1 if it does
 * not.
 */
const PARSERS: Readonly<Record<string, (text: string) => number>> = {
  'CRLF.CRLF only': input => endOf(`\r\n${input}`, /\r\n\.\r\n/),
  'LF or CRLF': input => endOf(`\r\n${input}`, /\n\.\r?\n/),
  'trailing CRs stripped': input => endOf(`\r\n${input}`, /\n\.\r*\n/),
  'NUL deleted first': input => endOf(`\r\n${input.replaceAll('\0', '')}`, /\n\.\r?\n/),
  'first line decides': input =>
    endOf(`\r\n${input}`, /^[^\n]*[^\r\n]\n/.test(input) || input.startsWith('.\n') ? /\n\.\r?\n/ : /\r\n\.\r\n/),
}

function endOf(text: string, pattern: RegExp): number {
  const found = pattern.exec(text)
  return found === null ? -1 : found.index + found[0].length - 2
}

const isClean = (output: string): boolean => !/\0|(?<!\r)\n|\r(?!\n)/.test(output)

describe.each([
  ['strict', () => new StrictContent()],
  ['repair', () => new RepairedContent()],
] as const)('%s', (name, newContent) => {
  test.prop([text, cuts])('does not depend on the pieces', (input, at) => {
    expect(pass(newContent(), input, at)).toEqual(pass(newContent(), input))
  })

  test.prop([text, cuts])('passes no bare CR, bare LF or NUL', (input, at) => {
    const { output, state } = pass(newContent(), input, at)
    const ended = name === 'strict' && state !== 'end' ? output.replace(/\r$/, '') : output
    expect(isClean(ended)).toBe(true)
  })

  test.prop([text, cuts])('ends at the place at which every server ends', (input, at) => {
    const { output, state } = pass(newContent(), input, at)
    for (const [parser, end] of Object.entries(PARSERS))
      expect([parser, end(output)]).toEqual([parser, state === 'end' ? output.length : -1])
  })
})

test.prop([text])('strict: the octets that pass are a prefix of the input', input => {
  const { output, rest, state } = pass(new StrictContent(), input)
  expect(output + rest).toBe(input)
  if (state === 'violation')
    expect('\0\r\n').toContain(/^(?:\r\n)?/.exec(rest) === null ? '' : output.endsWith('\r') ? '\r' : rest[0])
})

test.prop([text])('strict: the first octet that does not pass violates the rule', input => {
  const { output, rest, state } = pass(new StrictContent(), input)
  if (state === 'violation') expect(isClean(output + rest.slice(0, 1))).toBe(false)
})

test.prop([text])('a second repair changes nothing', input => {
  const once = pass(new RepairedContent(), input)
  if (once.state === 'end') expect(pass(new RepairedContent(), once.output)).toEqual({ ...once, rest: '' })
})

const line = fc.array(fc.constantFrom('a', '..', 'b c', '.x'), { maxLength: 4 }).map(words => words.join(''))
const clean = fc.array(line, { maxLength: 20 }).map(lines => `${lines.map(each => `${each}\r\n`).join('')}.\r\n`)

test.prop([clean, cuts])('a clean message passes unchanged', (input, at) => {
  for (const content of [new StrictContent(), new RepairedContent()])
    expect(pass(content, input, at)).toEqual({ output: input, state: 'end', rest: '' })
})

test.prop([text])('repair at most doubles the octets of a line', input => {
  expect(pass(new RepairedContent(), input).output.length).toBeLessThanOrEqual(2 * input.length + 2)
})

test('a run of CRs is limited', () => {
  const { output } = pass(new RepairedContent(), `${'\r'.repeat(100_000)}x`)
  expect(output).toBe(`${'\r\n'.repeat(1000)}x`)
})
