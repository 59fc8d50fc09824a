import { upperCaseAscii } from '../../../src/pop3/command.ts'
import type { Random } from './random.ts'

/** Numbers and characters that often reveal errors of parsers. */
const NASTY = [
  ...['\0', '\r', '\n', '\r\n', '\t', ' ', '  ', '=', ':', '[', ']', '"', "'", '\\', '%', '%00', '%0a', '#012', '\x7f'],
  ...['0', '-1', '1', '255', '256', '65535', '65536', '2147483648', '4294967296', '99999999999999999999', '1e9', 'NaN'],
  ...['\xff\xff\xff\xff', '\0\0\0\0', '\xff', '\x80', '\xc3\x28', '\xe2\x80\xa8', '::', '::1', '127.0.0.1', '0.0.0.0'],
  ...['::ffff:198.51.100.66', '198.51.100.66', '__proto__', 'constructor'],
]

/**
 * A text (one character per octet) with a few random changes; `dictionary`: further pieces with a
 * meaning for the parser.
 */
export function mutated(random: Random, text: string, dictionary: readonly string[] = []): string {
  let changed = text
  for (let left = 1 + random.int(4); left > 0; left--) changed = once(random, changed, dictionary)
  return changed
}

function once(random: Random, text: string, dictionary: readonly string[]): string {
  const at = random.int(text.length + 1)
  const end = Math.min(text.length, at + random.int(random.oneIn(8) ? text.length + 1 : 8))
  const [before, piece, after] = [text.slice(0, at), text.slice(at, end), text.slice(end)]
  switch (random.int(10)) {
    case 0:
      return before + after
    case 1:
      return before
    case 2:
      return before + piece + piece + after
    case 3:
      return before + String.fromCharCode(random.int(256)) + text.slice(at + 1)
    case 4:
      return before + String.fromCharCode((text.charCodeAt(at) || 0) ^ (1 << random.int(8))) + text.slice(at + 1)
    case 5:
      return before + random.octets(12) + text.slice(at)
    case 6:
      return before + random.pick(NASTY) + (random.oneIn(2) ? text.slice(at) : after)
    case 7:
      return (
        before + (dictionary.length === 0 ? '' : random.pick(dictionary)) + (random.oneIn(2) ? text.slice(at) : after)
      )
    case 8:
      return random.oneIn(64) ? before + repeated(piece || 'x', random.int(2000)) + after : after + before
    default:
      return before + upperCaseAscii(piece) + after
  }
}

/** Repeats at most MAX_REPEATED octets, independent of the number of changes. */
const repeated = (piece: string, times: number): string =>
  piece.repeat(Math.min(times, Math.floor(MAX_REPEATED / piece.length)))
const MAX_REPEATED = 200_000

/** Divides the octets at random places, in order. */
export function cut(random: Random, octets: Buffer): readonly Buffer[] {
  const pieces: Buffer[] = []
  for (let at = 0; at < octets.length; ) {
    const end = random.oneIn(3) ? octets.length : at + 1 + random.int(Math.min(64, octets.length - at))
    pieces.push(octets.subarray(at, end))
    at = end
  }
  return pieces
}
