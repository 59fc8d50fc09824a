import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  EncoderPool,
  kernelBlock,
  LF,
  type LineEncoder,
  lineEndAfter,
  REPLY_ROOM,
  scriptBlock,
} from '../../../src/pop3d/encoding/line-encoder.ts'

const MAX_INPUT = 4096
if (kernelBlock === undefined) throw new Error('this runtime has no WebAssembly SIMD')
const kernel = kernelBlock
const encoders = () =>
  [
    ['script', new EncoderPool(MAX_INPUT, scriptBlock).take()],
    ['kernel', new EncoderPool(MAX_INPUT, kernel).take()],
  ] as const

/** Encodes the piece with both outputs and at two places; the results must agree. */
function encode(encoder: LineEncoder, piece: Buffer, previous: number, keepCr: boolean): string {
  const { input, outputs } = encoder
  input.fill(LF)
  piece.copy(input)
  const [first, second] = outputs
  const octets = encoder.encode(piece.length, previous, keepCr, 0, 0)
  const at = REPLY_ROOM / 2
  expect(encoder.encode(piece.length, previous, keepCr, 1, at)).toBe(octets)
  expect(second.subarray(at, at + octets).equals(first.subarray(0, octets))).toBe(true)
  return first.toString('latin1', 0, octets)
}

/** The rule in its simplest form, line by line (docs/spec/pop3d.md §4). */
function encodeByLines(file: Buffer, keepCr: boolean): string {
  const lines = file.toString('latin1').split('\n')
  const last = lines.pop() ?? ''
  if (last !== '') lines.push(last)
  return lines
    .map(line => (keepCr ? line : line.replace(/\r$/, '')))
    .map(line => `${line.startsWith('.') ? '.' : ''}${line}\r\n`)
    .join('')
}

function encodeInPieces(encoder: LineEncoder, pieces: readonly Buffer[], keepCr: boolean) {
  let previous = LF
  let text = ''
  let octets = 0
  for (const piece of pieces) {
    text += encode(encoder, piece, previous, keepCr)
    octets += encoder.count(piece.length, previous, keepCr)
    previous = piece.at(-1) ?? previous
  }
  const end = lineEndAfter(previous, keepCr)
  return { text: text + end, octets: octets + end.length }
}

/**
 * The lines that a client reads from a multi-line response, without byte-stuffing (RFC 1939 §3).
 */
const unstuff = (text: string): string =>
  text
    .split('\r\n')
    .map(line => line.replace(/^\./, ''))
    .join('\r\n')

const octets = fc.oneof(
  fc.array(fc.constantFrom(10, 13, 46, 97), { maxLength: 200 }),
  fc.array(fc.nat(255), { maxLength: 200 }),
  // Long lines with a special octet at any place, because a kernel that reads 16 octets at a time
  // could miss it.
  fc
    .array(fc.tuple(fc.nat(40), fc.constantFrom('\n', '\r\n', '\n.', '.', '\r', '\n\n')), { maxLength: 60 })
    .map(parts => [...Buffer.from(parts.map(([length, end]) => 'x'.repeat(length) + end).join(''), 'latin1')]),
)
const file = octets.map(list => Buffer.from(list))
const cuts = fc.array(fc.nat(2500), { maxLength: 5 })

function cut(whole: Buffer, places: readonly number[]): readonly Buffer[] {
  const ends = [...places.filter(place => place < whole.length).sort((a, b) => a - b), whole.length]
  return ends.map((end, index) => whole.subarray(ends[index - 1] ?? 0, end))
}

describe.each(encoders())('the %s encoder', (_, encoder) => {
  test('encodes by the rule, for any pieces of the file', () => {
    fc.assert(
      fc.property(file, cuts, fc.boolean(), (whole, places, keepCr) => {
        const { text, octets } = encodeInPieces(encoder, cut(whole, places), keepCr)
        expect(text).toBe(encodeByLines(whole, keepCr))
        expect(octets).toBe(unstuff(text).length)
      }),
      { numRuns: 2000 },
    )
  })

  test('is the inverse of a client: the client reads the lines of the file', () => {
    fc.assert(
      fc.property(file, whole => {
        const { text } = encodeInPieces(encoder, [whole], false)
        const lines = unstuff(text).split('\r\n').slice(0, -1)
        expect(lines.join('\n')).toBe(
          whole
            .toString('latin1')
            .replace(/\r\n/g, '\n')
            .replace(/[\r\n]$/, ''),
        )
        expect(text).not.toMatch(/(^|\r\n)\.\r\n/)
      }),
    )
  })

  test('accepts the longest input, with an output that is twice as long', () => {
    for (const octet of ['\n', '.', '\r', 'x', '\n.']) {
      const whole = Buffer.from(octet.repeat(MAX_INPUT / octet.length), 'latin1')
      expect(encodeInPieces(encoder, [whole], true).text).toBe(encodeByLines(whole, true))
      expect(encodeInPieces(encoder, [whole], false).text).toBe(encodeByLines(whole, false))
    }
  })
})

test('the WebAssembly encoder and the script encoder give the same octets', () => {
  const [[, script], [, simd]] = encoders()
  fc.assert(
    fc.property(file, fc.nat(255), fc.boolean(), (whole, previous, keepCr) => {
      expect(encode(simd, whole, previous, keepCr)).toBe(encode(script, whole, previous, keepCr))
      expect(simd.count(whole.length, previous, keepCr)).toBe(script.count(whole.length, previous, keepCr))
    }),
    { numRuns: 5000 },
  )
})

test('no transfer contains octets of another: more transfers than one block holds, full, with both outputs', () => {
  const pool = new EncoderPool(MAX_INPUT)
  const taken = Array.from({ length: 40 }, () => pool.take())
  // The longest possible result: every octet needs one more.
  const results = taken.map((encoder, index) => {
    encoder.input.fill(LF)
    const first = encoder.encode(MAX_INPUT, LF, false, 0, REPLY_ROOM / 2)
    encoder.input.fill(65 + index)
    return [encoder, first, encoder.encode(MAX_INPUT, LF, false, 1, REPLY_ROOM / 2)] as const
  })
  for (const [index, [{ outputs }, first, second]] of results.entries()) {
    const at = REPLY_ROOM / 2
    expect(outputs[0].toString('latin1', at, at + first)).toBe('\r\n'.repeat(MAX_INPUT))
    expect(outputs[1].toString('latin1', at, at + second)).toBe(String.fromCharCode(65 + index).repeat(MAX_INPUT))
  }
})

test('a returned encoder serves the next transfer, and additional memory of a peak is freed', () => {
  let blocks = 0
  const pool = new EncoderPool(MAX_INPUT, maxInput => {
    blocks += 1
    return kernel(maxInput)
  })
  const first = pool.take()
  first.release()
  expect(pool.take()).toBe(first)
  const rush = Array.from({ length: 40 }, () => pool.take())
  expect(new Set([first, ...rush]).size).toBe(41)
  expect(blocks).toBe(3)
  for (const encoder of [first, ...rush]) encoder.release()
  const again = Array.from({ length: 17 }, () => pool.take())
  expect(blocks).toBe(4)
  expect(new Set(again).size).toBe(17)
})

test('without memory for WebAssembly the script encoder is used', () => {
  const pool = new EncoderPool(MAX_INPUT, () => {
    throw new RangeError('WebAssembly.Memory(): could not allocate memory')
  })
  const [first, second] = [pool.take(), pool.take()]
  expect(encode(first, Buffer.from('.a\n'), LF, false)).toBe('..a\r\n')
  expect(first.input.buffer).not.toBe(second.input.buffer)
})
