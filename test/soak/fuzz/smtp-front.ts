import { formatPath, parsePath } from '../../../src/smtp/address.ts'
import { CommandReader, MAX_AUTH_LINE, MAX_COMMAND_LINE, parseCommand } from '../../../src/smtp/command.ts'
import { type Content, EndFinder, RepairedContent, StrictContent } from '../../../src/smtp/content.ts'
import { ReplyFault, ReplyReader } from '../../../src/smtp/reply.ts'
import { scanContent } from '../../../src/wrap/front/content-scan.ts'
import { type FuzzTarget, only, promise } from './fuzz-target.ts'
import { cut, mutated } from './mutation.ts'
import type { Random } from './random.ts'

const COMMANDS = [
  'EHLO copier.example.org\r\n',
  'MAIL FROM:<scan@example.org> BODY=8BITMIME SIZE=1000\r\n',
  'RCPT TO:<"bob smith"@example.org>\r\n',
  'RCPT TO:<@relay.example:bob@[192.0.2.7]>\r\n',
  'AUTH PLAIN AGFubgBzZXNhbWU=\r\n',
  'DATA\r\n',
  'BDAT 10 LAST\r\n',
]
const CONTENTS = [
  'Subject: a\r\n\r\nbody\r\n.\r\nRSET\r\n',
  '.\r\n',
  '..\r\n.\r\n',
  'a\r\n.\r\n',
  'a\n.\n',
  'a\r.\r\n\0',
]
const REPLIES = [
  '250-mx.example.org\r\n250-STARTTLS\r\n250 8BITMIME\r\n',
  '354 go ahead\r\n',
  '250\r\n',
  '421 4.3.0 bye\r\n',
]

function commands(random: Random): void {
  const octets = Buffer.from(mutated(random, random.pick(COMMANDS) + random.pick(COMMANDS), COMMANDS), 'latin1')
  const read = (pieces: readonly Buffer[]): readonly string[] => {
    const reader = new CommandReader()
    const lines: string[] = []
    for (const piece of pieces) {
      reader.push(piece)
      for (let line = reader.next(false); line !== undefined; line = reader.next(false)) {
        lines.push(JSON.stringify(line))
        if (line.kind === 'tls_hello') return lines
        if (line.kind === 'line') checkLine(line.text)
      }
      promise(reader.pending <= MAX_AUTH_LINE + piece.length, 'holds more than a line', octets.toString('latin1'))
    }
    return lines
  }
  const [whole, pieces] = [read([octets]), read(cut(random, octets))]
  const isLong = octets.length > MAX_COMMAND_LINE
  promise(isLong || JSON.stringify(whole) === JSON.stringify(pieces), 'other lines when cut', octets.toString('latin1'))
}

/** The server reads the path that the front passes on in the same way as the front. */
function checkLine(text: string): void {
  parseCommand(text)
  for (const word of ['FROM', 'TO'] as const) {
    const path = parsePath(text.slice(text.indexOf(' ') + 1), word)
    if (typeof path === 'string') continue
    const again = parsePath(formatPath(path, word), word)
    promise(JSON.stringify(again) === JSON.stringify(path), 'another path when written again', text)
  }
}

/** The octets that passed, and the end of the read. */
function passed(make: () => Content, pieces: readonly Buffer[]): readonly [text: string, state: string, taken: number] {
  const content = make()
  let text = ''
  let taken = 0
  for (const piece of pieces) {
    const step = content.push(piece, octets => {
      text += Buffer.from(octets).toString('latin1')
    })
    taken += step.taken
    if (step.state !== 'more') return [text, step.state, taken]
  }
  return [text, 'more', taken]
}

/**
 * A message ends at CRLF.CRLF only, and the octets that passed contain nothing that servers read
 * differently.
 */
function contents(random: Random): void {
  const input = mutated(random, random.pick(CONTENTS) + random.pick(CONTENTS), CONTENTS)
  const octets = Buffer.from(input, 'latin1')
  for (const make of [() => new StrictContent(scanContent), () => new RepairedContent()]) {
    const whole = passed(make, [octets])
    const [text, state, taken] = whole
    promise(JSON.stringify(whole) === JSON.stringify(passed(make, cut(random, octets))), 'differs when cut', input)
    promise(!/\0|(^|[^\r])\n|\r(?!\n|$)/s.test(text), 'passed an octet that servers differ about', input)
    if (state !== 'end') promise(!`\r\n${text}`.includes('\r\n.\r\n'), 'passed an end that was none', input)
    else promise(`\r\n${text}`.indexOf('\r\n.\r\n') === text.length - 3, 'passed more than one end', input)
    promise(taken <= octets.length, 'read more than the input', input)
  }
  const finder = new EndFinder()
  const end = finder.push(octets)
  promise(end === (input.includes('\r\n.\r\n') ? input.indexOf('\r\n.\r\n') + 5 : -1), 'another end', input)
}

function replies(random: Random): void {
  const octets = Buffer.from(mutated(random, random.pick(REPLIES) + random.pick(REPLIES), REPLIES), 'latin1')
  const read = (pieces: readonly Buffer[]): string | undefined =>
    only(ReplyFault, octets.toString('latin1'), () => {
      const reader = new ReplyReader()
      return JSON.stringify(pieces.flatMap(piece => reader.push(piece)).map(line => [line.code, line.isLast]))
    })
  promise(read([octets]) === read(cut(random, octets)), 'other replies when cut', octets.toString('latin1'))
}

/** Octets of a client and of a server at the front: commands, content, replies. */
export const smtpFront: FuzzTarget = {
  name: 'smtp-front',
  attempt: random => random.pick([commands, contents, contents, replies])(random),
}
