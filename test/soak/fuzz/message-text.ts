import {
  EncoderPool,
  LF,
  type LineEncoder,
  lineEndAfter,
  scriptBlock,
} from '../../../src/pop3d/encoding/line-encoder.ts'
import { TopLimit } from '../../../src/pop3d/encoding/send-message.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'

const MAX_INPUT = 4096
const ENCODERS = [new EncoderPool(MAX_INPUT), new EncoderPool(MAX_INPUT, scriptBlock)].map(pool => pool.take())

const MESSAGES = [
  'Subject: x\n\n.a\n..\nb',
  'Subject: x\r\nTo: y\r\n\r\n.\r\n.a\r\r\n',
  '\n.\n',
  `${'x'.repeat(40)}\n.${'y'.repeat(15)}\r\n${'z'.repeat(16)}.`,
]
const WORDS = ['\n.\n', '\r\n.\r\n', '\n..', '\r\r\n', '\n\n', '\r\n\r\n', '.', '\r', 'x'.repeat(16), 'x'.repeat(255)]

const linesOf = (file: string): readonly string[] => file.match(/[^\n]*\n|[^\n]+$/g) ?? []

/** RFC 1939 §3, line by line. */
const encoded = (file: string, keepCr: boolean): string =>
  linesOf(file)
    .map(line => line.replace(/\n$/, ''))
    .map(line => (keepCr ? line : line.replace(/\r$/, '')))
    .map(line => `${line.startsWith('.') ? '.' : ''}${line}\r\n`)
    .join('')

/** RFC 1939 §7: the header, the empty line, and lines of the body. */
function topOf(file: string, bodyLines: number, crIsEmpty: boolean): string {
  const lines = linesOf(file)
  const header = lines.findIndex(line => line === '\n' || (crIsEmpty && line === '\r\n'))
  return (header < 0 ? lines : lines.slice(0, header + 1 + bodyLines)).join('')
}

function encode(encoder: LineEncoder, pieces: readonly Buffer[], keepCr: boolean) {
  let [previous, text, counted] = [LF, '', 0]
  for (const piece of pieces) {
    piece.copy(encoder.input)
    const octets = encoder.encode(piece.length, previous, keepCr, 0, 0)
    text += encoder.outputs[0].toString('latin1', 0, octets)
    counted += encoder.count(piece.length, previous, keepCr)
    previous = piece.at(-1) ?? previous
  }
  const end = lineEndAfter(previous, keepCr)
  return { text: text + end, counted: counted + end.length }
}

/** Octets of message files, in any pieces, as RETR and TOP send them and as LIST counts them. */
export const messageText: FuzzTarget = {
  name: 'message-text',
  attempt(random) {
    const file = mutated(random, random.pick(MESSAGES), WORDS).slice(0, 64 * MAX_INPUT)
    const [keepCr, bodyLines] = [random.oneIn(2), random.int(5)]
    const pieces = cut(random, Buffer.from(file, 'latin1')).flatMap(piece =>
      Array.from({ length: Math.ceil(piece.length / MAX_INPUT) }, (_, n) =>
        piece.subarray(n * MAX_INPUT, (n + 1) * MAX_INPUT),
      ),
    )
    const wanted = encoded(file, keepCr)
    const stuffed = linesOf(file).filter(line => line.startsWith('.')).length
    for (const encoder of ENCODERS) {
      const { text, counted } = encode(encoder, pieces, keepCr)
      promise(text === wanted, 'other octets', file)
      promise(counted === wanted.length - stuffed, 'another size', file)
    }
    const limit = new TopLimit(bodyLines, !keepCr)
    let top = ''
    for (const piece of pieces) {
      const taken = limit.take(piece)
      top += piece.toString('latin1', 0, taken)
      if (taken < piece.length) break
    }
    promise(top === topOf(file, bodyLines, !keepCr), `other lines of TOP ${bodyLines}`, file)
  },
}
