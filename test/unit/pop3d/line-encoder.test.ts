import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  createKernelEncoder,
  createScriptEncoder,
  type EncoderLane,
  LF,
  type LineEncoder,
  lineEndAfter,
} from '../../../src/pop3d/encoding/line-encoder.ts'

const MAX_INPUT = 4096
const kernel = createKernelEncoder(MAX_INPUT)
if (kernel === undefined) throw new Error('this runtime has no WebAssembly SIMD')
const encoders = () =>
  [
    ['script', createScriptEncoder(MAX_INPUT)],
    ['kernel', kernel],
    ['kernel, by lanes', byLanes],
  ] as const

/** The rule in its plainest form, line by line (spec/pop3d.md §4). */
function encodeByLines(file: Buffer, keepCr: boolean): string {
  const lines = file.toString('latin1').split('\n')
  const last = lines.pop() ?? ''
  if (last !== '') lines.push(last)
  return lines
    .map(line => (keepCr ? line : line.replace(/\r$/, '')))
    .map(line => `${line.startsWith('.') ? '.' : ''}${line}\r\n`)
    .join('')
}

/** The kernel by a lane: its outputs in turns, as a transfer uses them. */
const byLanes: LineEncoder = {
  ...kernel,
  encode(input, previous, keepCr) {
    const lane = kernel.takeLane()
    if (lane === undefined) throw new Error('no lane is left')
    lane.input.fill(0x0a).set(input)
    const first = Buffer.from(lane.encode(input.length, previous, keepCr, 0))
    const second = lane.encode(input.length, previous, keepCr, 1)
    expect(first.equals(second)).toBe(true)
    kernel.giveLane(lane)
    return second
  },
}

function encodeInPieces(encoder: LineEncoder, pieces: readonly Buffer[], keepCr: boolean) {
  let previous = LF
  let text = ''
  let octets = 0
  for (const piece of pieces) {
    text += Buffer.from(encoder.encode(piece, previous, keepCr)).toString('latin1')
    octets += encoder.count(piece, previous, keepCr)
    previous = piece.at(-1) ?? previous
  }
  const end = lineEndAfter(previous, keepCr)
  return { text: text + end, octets: octets + end.length }
}

/** What a client makes of a multi-line response: lines without byte-stuffing, RFC 1939 §3. */
const unstuff = (text: string): string =>
  text
    .split('\r\n')
    .map(line => line.replace(/^\./, ''))
    .join('\r\n')

const octets = fc.oneof(
  fc.array(fc.constantFrom(10, 13, 46, 97), { maxLength: 200 }),
  fc.array(fc.nat(255), { maxLength: 200 }),
  // Long lines with something at any place: what a kernel that takes 16 octets at a time may get wrong.
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
  test('encodes as the rule says, however the file is cut', () => {
    fc.assert(
      fc.property(file, cuts, fc.boolean(), (whole, places, keepCr) => {
        const { text, octets } = encodeInPieces(encoder, cut(whole, places), keepCr)
        expect(text).toBe(encodeByLines(whole, keepCr))
        expect(octets).toBe(unstuff(text).length)
      }),
      { numRuns: 2000 },
    )
  })

  test('is undone by a client: the lines are those of the file', () => {
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

  test('takes the longest input, and the output that is twice as long', () => {
    for (const octet of ['\n', '.', '\r', 'x', '\n.']) {
      const whole = Buffer.from(octet.repeat(MAX_INPUT / octet.length), 'latin1')
      expect(encodeInPieces(encoder, [whole], true).text).toBe(encodeByLines(whole, true))
      expect(encodeInPieces(encoder, [whole], false).text).toBe(encodeByLines(whole, false))
    }
  })
})

test('kernel and script agree octet for octet', () => {
  const [[, script], [, simd]] = encoders()
  fc.assert(
    fc.property(file, fc.nat(255), fc.boolean(), (whole, previous, keepCr) => {
      expect(Buffer.from(simd.encode(whole, previous, keepCr)).equals(script.encode(whole, previous, keepCr))).toBe(
        true,
      )
      expect(simd.count(whole, previous, keepCr)).toBe(script.count(whole, previous, keepCr))
    }),
    { numRuns: 5000 },
  )
})

test('no transfer sees the octets of another: every lane, full, both outputs at once', () => {
  const own = createKernelEncoder(MAX_INPUT)
  if (own === undefined) throw new Error('this runtime has no WebAssembly SIMD')
  const lanes: EncoderLane[] = []
  for (let lane = own.takeLane(); lane !== undefined; lane = own.takeLane()) lanes.push(lane)
  expect(lanes.length).toBeGreaterThan(8)
  // The longest result there is: every octet needs one more.
  const results = lanes.map((lane, index) => {
    lane.input.fill(LF)
    const first = lane.encode(MAX_INPUT, LF, false, 0)
    lane.input.fill(65 + index)
    return [first, lane.encode(MAX_INPUT, LF, false, 1)] as const
  })
  own.encode(Buffer.alloc(MAX_INPUT, LF), LF, false)
  for (const [index, [first, second]] of results.entries()) {
    expect(Buffer.from(first).toString('latin1')).toBe('\r\n'.repeat(MAX_INPUT))
    expect(Buffer.from(second).toString('latin1')).toBe(String.fromCharCode(65 + index).repeat(MAX_INPUT))
  }
})
