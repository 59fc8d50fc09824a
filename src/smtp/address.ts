/**
 * A mailbox of MAIL or RCPT. One character per octet (Latin-1) throughout, as everywhere in this
 * room.
 */
export type Mailbox = {
  /** As the client wrote it, without a source route: the text between the brackets. */
  readonly written: string
  /** Without quotes and escapes. */
  readonly local: string
  /** Undefined for a local part alone. An address literal keeps its brackets. */
  readonly domain: string | undefined
}

/**
 * `MAIL FROM:<path> parameters` or `RCPT TO:<path> parameters`. The mailbox is undefined for the
 * null path `<>`.
 */
export type Path = { readonly mailbox: Mailbox | undefined; readonly parameters: readonly string[] }

/** Why an argument of MAIL or RCPT is refused. */
export type PathFault = 'syntax' | 'too_long' | 'not_utf8'

/** RFC 5321 section 4.5.3.1. */
const [MAX_LOCAL, MAX_DOMAIN, MAX_PATH] = [64, 255, 256]

/**
 * RFC 5321's atext, dots and every octet above ASCII. Dots may stand anywhere, as old mailboxes
 * have them.
 */
const LOCAL = /[a-z0-9!#$%&'*+\-/=?^_`{|}~.\x80-\xff]+/iy
/** Names with an underscore exist, and every server takes them. */
const DOMAIN = /[a-z0-9_.\-\x80-\xff]+/iy
const LITERAL = /\[[\x21-\x5a\x5e-\x7e]+\]/y
const QUOTED = /"(?:[\x20\x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\x20-\x7e])*"/y
const PARAMETER = /[a-z0-9][a-z0-9-]*(?:=[\x21-\x3c\x3e-\x7e\x80-\xff]+)?(?![^ \t])/iy
const SPACE = /[ \t]+/y

/**
 * The grammar is narrower than that of any server. Some servers read the first `<` of the line, or
 * a second address after the first one. Such a server must never get a text in which it could find
 * another address than this one.
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
    if (local.length > MAX_LOCAL || domain.length > MAX_DOMAIN || written.length + 2 > MAX_PATH) return 'too_long'
  }
  if (!isUtf8(`${mailbox?.written ?? ''} ${parameters.join(' ')}`)) return 'not_utf8'
  return { mailbox, parameters }
}

/** The canonical form: one space, brackets, no route. `FROM:<local@domain> SIZE=9`. */
export const formatPath = ({ mailbox, parameters }: Path, word: 'FROM' | 'TO'): string =>
  [`${word}:<${mailbox?.written ?? ''}>`, ...parameters].join(' ')

/**
 * RFC 5321 appendix C: a source route is accepted and removed. False if a route has begun and does
 * not end.
 */
function skipRoute(scanner: Scanner): boolean {
  if (!scanner.sees('@')) return true
  do {
    if (!scanner.takeOctet('@') || scanner.take(DOMAIN) === undefined) return false
  } while (scanner.takeOctet(','))
  return scanner.takeOctet(':')
}

/** Undefined if no mailbox stands here. */
function takeMailbox(scanner: Scanner): Mailbox | undefined | 'syntax' {
  const isQuoted = scanner.sees('"')
  const written = scanner.take(isQuoted ? QUOTED : LOCAL)
  if (written === undefined) return isQuoted || scanner.sees('@') ? 'syntax' : undefined
  const local = isQuoted ? written.slice(1, -1).replace(/\\(.)/gs, '$1') : written
  if (!scanner.takeOctet('@')) return { written, local, domain: undefined }
  const domain = scanner.take(scanner.sees('[') ? LITERAL : DOMAIN)
  return domain === undefined ? 'syntax' : { written: `${written}@${domain}`, local, domain }
}

const isUtf8 = (octets: string): boolean => {
  if (!/[\x80-\xff]/.test(octets)) return true
  const bytes = Buffer.from(octets, 'latin1')
  return Buffer.from(bytes.toString()).equals(bytes)
}

class Scanner {
  readonly #text: string
  #at = 0

  constructor(text: string) {
    this.#text = text
  }

  get isAtEnd(): boolean {
    return this.#at === this.#text.length
  }

  sees(octet: string): boolean {
    return this.#text[this.#at] === octet
  }

  takeOctet(octet: string): boolean {
    if (!this.sees(octet)) return false
    this.#at += 1
    return true
  }

  /** Without case. */
  takeWord(word: string): boolean {
    if (this.#text.slice(this.#at, this.#at + word.length).toUpperCase() !== word) return false
    this.#at += word.length
    return true
  }

  /** True if there was one. */
  skipSpace(): boolean {
    return this.take(SPACE) !== undefined
  }

  /** `pattern` is sticky. */
  take(pattern: RegExp): string | undefined {
    pattern.lastIndex = this.#at
    const found = pattern.exec(this.#text)?.[0]
    if (found !== undefined) this.#at += found.length
    return found
  }
}
