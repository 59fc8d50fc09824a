/**
 * Paths of MAIL and RCPT: parsing and formatting them (RFC 5321 §4.1.2). Texts of this room have
 * one character per octet (latin1).
 */

/** A mailbox of MAIL or RCPT. */
export type Mailbox = {
  /** The text between the brackets as the client wrote it, without a source route. */
  readonly written: string
  /** The local part without quotes and escapes. */
  readonly local: string
  /** Undefined if the mailbox is a local part alone. An address literal keeps its brackets. */
  readonly domain: string | undefined
}

/** The argument of MAIL or RCPT: `FROM:<path> parameters`. The null path `<>` has no mailbox. */
export type Path = { readonly mailbox: Mailbox | undefined; readonly parameters: readonly string[] }

/** Why an argument of MAIL or RCPT is refused. */
export type PathFault = 'syntax' | 'tooLong' | 'not_utf8'

/** Octets (RFC 5321 §4.5.3.1). */
const [MAX_LOCAL, MAX_DOMAIN, MAX_PATH] = [64, 255, 256]

/**
 * atext of RFC 5321, dots, and all octets above ASCII. Dots are permitted at each place, because
 * old mailboxes have them at the beginning, at the end, and in a row.
 */
const LOCAL = /[a-z0-9!#$%&'*+\-/=?^_`{|}~.\x80-\xff]+/iy
/** Host names with an underscore exist, and every mail server accepts them. */
const DOMAIN = /[a-z0-9_.\-\x80-\xff]+/iy
const LITERAL = /\[[\x21-\x5a\x5e-\x7e]+\]/y
const QUOTED = /"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\x20-\x7e])*"/y
const PARAMETER = /[a-z0-9][a-z0-9-]*(?:=[\x21-\x3c\x3e-\x7e\x80-\xff]+)?(?![^ \t])/iy
const SPACE = /[ \t]+/y

/**
 * Parses the argument of MAIL or RCPT. The grammar is narrower than that of any server, because a
 * server must not find another address in the text than the front. Some servers read the first `<`
 * of the line, or a second address behind the first one.
 */
export function parsePath(argument: string, word: 'FROM' | 'TO'): Path | PathFault {
  const scanner = new Scanner(argument)
  scanner.skipSpace()
  if (!scanner.takeWord(word)) return 'syntax'
  scanner.skipSpace()
  if (!scanner.takeOctet(':')) return 'syntax'
  scanner.skipSpace()
  const isBracketed = scanner.takeOctet('<')
  if (isBracketed && !skipRoute(scanner)) return 'syntax'
  const mailbox = takeMailbox(scanner)
  if (mailbox === 'syntax' || (mailbox === undefined && !isBracketed)) return 'syntax'
  if (isBracketed && !scanner.takeOctet('>')) return 'syntax'
  const parameters: string[] = []
  while (!scanner.isAtEnd) {
    if (!scanner.skipSpace()) return 'syntax'
    if (scanner.isAtEnd) break
    const parameter = scanner.take(PARAMETER)
    if (parameter === undefined) return 'syntax'
    parameters.push(parameter)
  }
  if (mailbox !== undefined) {
    const { written, local, domain = '' } = mailbox
    if (local.length > MAX_LOCAL || domain.length > MAX_DOMAIN || written.length + 2 > MAX_PATH) return 'tooLong'
  }
  if (!isUtf8(`${mailbox?.written ?? ''} ${parameters.join(' ')}`)) return 'not_utf8'
  return { mailbox, parameters }
}

/** Formats a path canonically: one space, brackets, no route. `FROM:<local@domain> SIZE=9`. */
export const formatPath = ({ mailbox, parameters }: Path, word: 'FROM' | 'TO'): string =>
  [`${word}:<${mailbox?.written ?? ''}>`, ...parameters].join(' ')

/**
 * Skips a source route, which servers accept and remove (RFC 5321 appendix C). False if a route
 * begins and does not end.
 */
function skipRoute(scanner: Scanner): boolean {
  if (!scanner.isAt('@')) return true
  do {
    if (!scanner.takeOctet('@') || scanner.take(DOMAIN) === undefined) return false
  } while (scanner.takeOctet(','))
  return scanner.takeOctet(':')
}

/** Takes a mailbox; undefined if the text at this place is not a mailbox. */
function takeMailbox(scanner: Scanner): Mailbox | undefined | 'syntax' {
  const isQuoted = scanner.isAt('"')
  const written = scanner.take(isQuoted ? QUOTED : LOCAL)
  if (written === undefined) return isQuoted || scanner.isAt('@') ? 'syntax' : undefined
  const local = isQuoted ? written.slice(1, -1).replace(/\\(.)/gs, '$1') : written
  if (!scanner.takeOctet('@')) return { written, local, domain: undefined }
  const domain = scanner.take(scanner.isAt('[') ? LITERAL : DOMAIN)
  return domain === undefined ? 'syntax' : { written: `${written}@${domain}`, local, domain }
}

const isUtf8 = (octets: string): boolean => {
  if (!/[\x80-\xff]/.test(octets)) return true
  const bytes = Buffer.from(octets, 'latin1')
  return Buffer.from(bytes.toString()).equals(bytes)
}

/** Reads a text from left to right. */
class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length
  }

  isAt(octet: string): boolean {
    return this.#text[this.#at] === octet
  }

  takeOctet(octet: string): boolean {
    if (!this.isAt(octet)) return false
    this.#at += 1
    return true
  }

  /** Takes the word, in upper or lower case. */
  takeWord(word: string): boolean {
    if (this.#text.slice(this.#at, this.#at + word.length).toUpperCase() !== word) return false
    this.#at += word.length
    return true
  }

  /** Skips spaces and tabs. True if there was at least one. */
  skipSpace(): boolean {
    return this.take(SPACE) !== undefined
  }

  /** Takes the text that `pattern` matches. The pattern must be sticky. */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }
}
