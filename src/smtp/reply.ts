/** A line of a server's reply, with its end. */
export type ReplyLine = { readonly octets: Buffer; readonly code: number; readonly isLast: boolean }

/** Octets of a line of a reply, its end included (RFC 5321 section 4.5.3.1.5 asks for 512). */
export const MAX_REPLY_LINE = 4096
/** Octets of a reply to EHLO, which is held until it is whole. */
export const MAX_EHLO_REPLY = 65_536

const LF = 0x0a
const NOTHING: Buffer = Buffer.alloc(0)

/** The server's line is not an SMTP reply. */
export class ReplyFault extends Error {
  override readonly name = 'ReplyFault'
}

/**
 * Cuts a server's octets into lines of replies, which stay as they are. A reply ends at its first
 * line without `-` behind the code.
 */
export class ReplyReader {
  #held = NOTHING

  /** Throws ReplyFault at a line that no reply has, or that is longer than MAX_REPLY_LINE. */
  push(octets: Uint8Array): readonly ReplyLine[] {
    let rest: Buffer = this.#held.length === 0 ? Buffer.from(octets) : Buffer.concat([this.#held, octets])
    const lines: ReplyLine[] = []
    for (let end = rest.indexOf(LF); end >= 0; end = rest.indexOf(LF)) {
      lines.push(parseReplyLine(rest.subarray(0, end + 1)))
      rest = rest.subarray(end + 1)
    }
    if (rest.length > MAX_REPLY_LINE) throw new ReplyFault('a line of a reply is too long')
    this.#held = rest
    return lines
  }
}

function parseReplyLine(octets: Buffer): ReplyLine {
  const found = octets.length > MAX_REPLY_LINE ? null : /^(\d\d\d)([ -]|\r?\n)/.exec(octets.toString('latin1', 0, 5))
  if (found === null) throw new ReplyFault('a line of a reply has no code, or is too long')
  return { octets, code: Number(found[1]), isLast: found[2] !== '-' }
}

/** Keywords of EHLO that a client must not get, because the front answers their commands. */
const HIDDEN_KEYWORD =
  /^\d{3}[ -](?:STARTTLS|CHUNKING|BINARYMIME|PIPECONNECT|ETRN|ATRN|TURN|EXPN|X[^ =\r\n]*)(?=[ =\r\n])/i
const AUTH_KEYWORD = /^\d{3}[ -]AUTH(?=[ =\r\n])/i

/**
 * A whole reply to EHLO, less the extensions that stay behind the front. The greeting line stays;
 * so does a reply that is no 250.
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

/** Octets of a constant text. */
const MAX_TEXT = 400

/** A reply of one line: printable ASCII, at most 400 octets. `reply`: its code and text. */
export const formatReply = (reply: string): Buffer =>
  Buffer.from(`${reply.replace(/[^\x20-\x7e]/g, percent).slice(0, MAX_TEXT)}\r\n`, 'latin1')

const percent = (octet: string): string => `%${octet.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`
