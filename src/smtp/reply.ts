/** SMTP replies: reading those of the server, filtering EHLO, and formatting those of the front. */
import { printableAscii } from '../wire/key-values.ts'
import { LineReader } from '../wire/lines.ts'

/** A line of a server's reply. `octets` include its line end. */
export type ReplyLine = { readonly octets: Buffer; readonly code: number; readonly isLast: boolean }

/** Longest line of a reply in octets, with its end. RFC 5321 §4.5.3.1.5 requires 512. */
export const MAX_REPLY_LINE = 4096
/** Longest reply to EHLO in octets. The front holds the reply until it is complete. */
export const MAX_EHLO_REPLY = 65_536

/** A line of the server is not an SMTP reply. */
export class ReplyFault extends Error {
  override readonly name = 'ReplyFault'
}

/**
 * Splits a server's octets into reply lines and keeps them unchanged. The last line of a reply has
 * no `-` behind its code.
 */
export class ReplyReader {
  readonly #lines = new LineReader()

  /** Throws ReplyFault at a line without a reply code, or longer than MAX_REPLY_LINE. */
  push(octets: Uint8Array): readonly ReplyLine[] {
    this.#lines.push(Buffer.from(octets))
    const lines: ReplyLine[] = []
    for (let line = this.#next(); line !== undefined; line = this.#next()) lines.push(line)
    return lines
  }

  #next(): ReplyLine | undefined {
    const line = this.#lines.take(MAX_REPLY_LINE)
    if (line === 'tooLong' || this.#lines.isDiscarding) throw new ReplyFault('a line of a reply is too long')
    return line === undefined ? undefined : parseReplyLine(line)
  }
}

function parseReplyLine(octets: Buffer): ReplyLine {
  const found = /^(\d\d\d)([ -]|\r?\n)/.exec(octets.toString('latin1', 0, 5))
  if (found === null) throw new ReplyFault('a line of a reply has no code')
  return { octets, code: Number(found[1]), isLast: found[2] !== '-' }
}

/** Keywords of EHLO that are removed, because the front answers their commands itself. */
const HIDDEN_KEYWORD =
  /^\d{3}[ -](?:STARTTLS|CHUNKING|BINARYMIME|PIPECONNECT|ETRN|ATRN|TURN|EXPN|X[^ =\r\n]*)(?=[ =\r\n])/i
/** `AUTH=` is the form of servers for clients older than RFC 2554. */
const AUTH_KEYWORD = /^\d{3}[ -]AUTH(?=[ =\r\n])/i

/** A complete reply to EHLO: its octets for the client, and whether the server offers AUTH. */
export type FilteredEhlo = { readonly octets: Buffer; readonly offersAuth: boolean }

/** Collects the replies to EHLO, line by line, and filters them. A session has one object. */
export class EhloReply {
  readonly #hideAuth: boolean
  #lines: ReplyLine[] = []
  #octets = 0

  constructor(hideAuth: boolean) {
    this.#hideAuth = hideAuth
  }

  /** Adds a line. Returns the reply at its last line; the next line begins another reply. */
  push(line: ReplyLine): FilteredEhlo | 'unfinished' | 'tooLong' {
    this.#lines.push(line)
    this.#octets += line.octets.length
    if (this.#octets > MAX_EHLO_REPLY) return 'tooLong'
    if (!line.isLast) return 'unfinished'
    const lines = this.#lines
    this.#lines = []
    this.#octets = 0
    // The first line has the name of the server, which may be "auth".
    const offersAuth = lines.slice(1).some(({ octets }) => AUTH_KEYWORD.test(octets.toString('latin1', 0, 16)))
    return { octets: filterEhlo(lines, this.#hideAuth), offersAuth }
  }
}

/**
 * Removes from a complete reply to EHLO the extensions that the front does not pass. The greeting
 * line stays, and a reply other than 250 stays unchanged.
 */
export function filterEhlo(lines: readonly ReplyLine[], hideAuth: boolean): Buffer {
  const [first] = lines
  if (first?.code !== 250) return Buffer.concat(lines.map(({ octets }) => octets))
  const isHidden = (text: string): boolean => HIDDEN_KEYWORD.test(text) || (hideAuth && AUTH_KEYWORD.test(text))
  const kept = lines
    .map(({ octets }) => octets.toString('latin1'))
    .filter((text, index) => index === 0 || !isHidden(text))
  return Buffer.from(
    kept
      .map((text, index) =>
        /^\d{3}\r?\n/.test(text) ? text : `250${index === kept.length - 1 ? ' ' : '-'}${text.slice(4)}`,
      )
      .join(''),
    'latin1',
  )
}

/** Longest reply of the front in octets, with its end. */
const MAX_REPLY = 400

/**
 * Formats a reply of one line from its code and text. Characters that are not printable ASCII
 * become the `%XX` of their UTF-8 octets. A line above MAX_REPLY octets is cut.
 */
export const formatReply = (reply: string): Buffer =>
  Buffer.from(`${printableAscii(reply, MAX_REPLY - 2)}\r\n`, 'latin1')
