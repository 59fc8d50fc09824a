import { COMMAND_LINE_LIMIT, SASL_LINE_LIMIT } from '../../../src/pop3/command.ts'
import { type Line, LineReader } from '../../../src/wire/lines.ts'
import { type FuzzTarget, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'
import { POP3_COMMANDS } from './pop3-commands.ts'

/** The documented behaviour of the reader, for a complete text. */
function expected(text: string, limit: number): readonly Line[] {
  const pieces = text.split('\n').slice(0, -1)
  return pieces.map(piece => {
    if (piece.length + 1 > limit) return { kind: 'tooLong' }
    const line = piece.endsWith('\r') ? piece.slice(0, -1) : piece
    return line.includes('\0') ? { kind: 'holdsNul' } : { kind: 'line', text: line }
  })
}

/**
 * Octets of a POP3 client: the lines do not depend on the pieces, and the reader holds at most one
 * line.
 */
export const pop3Lines: FuzzTarget = {
  name: 'pop3-lines',
  attempt(random) {
    const limit = random.pick([COMMAND_LINE_LIMIT, SASL_LINE_LIMIT, 1 + random.int(40)])
    const text = mutated(random, `${random.pick(POP3_COMMANDS)}\r\n${random.pick(POP3_COMMANDS)}\r\n`, POP3_COMMANDS)
    const reader = new LineReader()
    const lines: Line[] = []
    for (const piece of cut(random, Buffer.from(text, 'latin1'))) {
      reader.push(piece)
      for (let line = reader.next(limit); line !== undefined; line = reader.next(limit)) lines.push(line)
    }
    promise(JSON.stringify(lines) === JSON.stringify(expected(text, limit)), `other lines (limit ${limit})`, text)
    promise(reader.rest().length < limit, `holds more than a line (limit ${limit})`, text)
  },
}
