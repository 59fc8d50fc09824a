/** SMTP commands: parsing them, and splitting the client's octets into lines. */
import { LineReader } from '../wire/lines.ts'
import { formatPath, type Mailbox, type PathFault, parsePath } from './address.ts'

/** A command line as the front treats it. `line`: the line for the server, without its line end. */
export type Command =
  | { readonly kind: 'mail'; readonly line: string; readonly sender: Mailbox | undefined }
  | { readonly kind: 'recipient'; readonly line: string; readonly recipient: Mailbox | undefined }
  | { readonly kind: 'data' | 'reset' | 'quit' | 'auth' | 'other'; readonly line: string }
  /** HELO or EHLO. `name` is undefined if the client sent no name, or one that servers refuse. */
  | {
      readonly kind: 'hello'
      readonly verb: 'HELO' | 'EHLO'
      readonly name: string | undefined
      /** The name as the client sent it, with one space between two words. */
      readonly sent: string
    }
  /** A command that the front answers and never passes to the server. `verb` is in upper case. */
  | { readonly kind: 'hidden'; readonly verb: string }
  /** BDAT. The octets behind this line are not commands. */
  | { readonly kind: 'chunk' }
  /** A command with invalid syntax. `verb`: see CommandLine. */
  | { readonly kind: 'fault'; readonly verb: string; readonly reply: string }

/** Longest command line in octets, with its end. RFC 5321 §4.5.3.1.4: 512, more with extensions. */
export const MAX_COMMAND_LINE = 2048
/** Longest line of an AUTH dialogue in octets (RFC 4954 §4). */
export const MAX_AUTH_LINE = 12_288

/**
 * Verbs that the front answers, with all verbs that begin with X. After STARTTLS the front could
 * not read the dialogue. Servers permit more verbs to a local peer, such as the front: ETRN may
 * start a queue run, and XCLIENT may change the client's address. SEND, SOML and SAML begin a
 * message, as MAIL does.
 */
const HIDDEN: ReadonlySet<string> = new Set(['STARTTLS', 'ETRN', 'TURN', 'ATRN', 'EXPN', 'SEND', 'SOML', 'SAML'])

/** True if a message begins with the command, so that its refusal refuses the whole envelope. */
export const beginsMessage = (verb: string): boolean => /^(?:MAIL|SEND|SOML|SAML)$/.test(verb)

/** Host names and address literals. The front replaces other names, because servers refuse them. */
const HOST_NAME = /^[A-Za-z0-9.:[\]-]+$/

/**
 * Parses a command line without its end, one character per octet. The line has no control octet
 * except TAB.
 */
export function parseCommand(text: string): Command {
  // Postfix and sendmail skip space before the verb. The front must check the same verb that the
  // server reads.
  const [, verb = '', rest] = /^[ \t]*([^ \t]*)(?:[ \t](.*))?$/s.exec(text) ?? []
  const name = verb.toUpperCase()
  if (HIDDEN.has(name) || name.startsWith('X')) return { kind: 'hidden', verb: name }
  const line = rest === undefined ? verb : `${verb} ${rest}`
  switch (name) {
    case 'MAIL': {
      const path = parsePath(rest ?? '', 'FROM')
      if (typeof path === 'string') return faultOf(path, name)
      if (path.parameters.some(each => /^body=binarymime$/i.test(each)))
        return { kind: 'fault', verb: name, reply: '501 5.5.4 BODY=BINARYMIME is not supported' }
      return { kind: 'mail', line: `MAIL ${formatPath(path, 'FROM')}`, sender: path.mailbox }
    }
    case 'RCPT': {
      const path = parsePath(rest ?? '', 'TO')
      if (typeof path === 'string') return faultOf(path, name)
      return { kind: 'recipient', line: `RCPT ${formatPath(path, 'TO')}`, recipient: path.mailbox }
    }
    case 'HELO':
    case 'EHLO': {
      const words = (rest ?? '').split(/[ \t]+/).filter(word => word !== '')
      const sent = words.join(' ')
      return { kind: 'hello', verb: name, name: HOST_NAME.test(sent) ? sent : undefined, sent }
    }
    case 'BDAT':
      return { kind: 'chunk' }
    case 'DATA':
      return { kind: 'data', line }
    case 'RSET':
      return { kind: 'reset', line }
    case 'QUIT':
      return { kind: 'quit', line }
    case 'AUTH':
      return { kind: 'auth', line }
    default:
      return { kind: 'other', line }
  }
}

const faultOf = (fault: PathFault, verb: 'MAIL' | 'RCPT'): Command => ({
  kind: 'fault',
  verb,
  reply: faultReply(fault, verb),
})

function faultReply(fault: PathFault, verb: 'MAIL' | 'RCPT'): string {
  switch (fault) {
    case 'syntax':
      return `501 5.5.4 syntax: ${verb === 'MAIL' ? 'MAIL FROM' : 'RCPT TO'}:<address>`
    case 'tooLong':
      return `501 ${verb === 'MAIL' ? '5.1.7' : '5.1.3'} the address is too long`
    case 'not_utf8':
      return '501 5.6.7 the address is not UTF-8'
  }
}

/**
 * A line of the client without its end; one character per octet. `verb` is the verb of an invalid
 * line, in upper case; empty: the line does not begin with a verb.
 */
export type CommandLine =
  | { readonly kind: 'line'; readonly text: string }
  | { readonly kind: 'tooLong' | 'control_character'; readonly verb: string }
  | { readonly kind: 'tls_hello' }

/** First octet of a TLS record with a handshake (RFC 8446 §5.1). */
const TLS_HANDSHAKE = 0x16

/** Splits octets into command lines. Holds at most MAX_AUTH_LINE octets of an unfinished line. */
export class CommandReader {
  readonly #lines = new LineReader()
  /** Verb of the current line. It is kept while the rest of a long line is discarded. */
  #verb = ''

  /** Copies the octets, because the front reads all its clients into one buffer. */
  push(octets: Uint8Array): void {
    this.#lines.push(Buffer.from(octets))
  }

  /** Number of octets that were not used as a line. */
  get pending(): number {
    return this.#lines.pending.length
  }

  /** Removes and returns all pending octets. */
  rest(): Buffer {
    return this.#lines.rest()
  }

  /**
   * Returns the next line, or undefined if more octets are needed. `isAuth`: the line answers a
   * challenge of AUTH.
   */
  next(isAuth: boolean): CommandLine | undefined {
    const { pending, isDiscarding } = this.#lines
    if (pending[0] === TLS_HANDSHAKE && !isDiscarding && !isAuth) return { kind: 'tls_hello' }
    if (!isDiscarding) this.#verb = verbOf(pending.toString('latin1', 0, MAX_COMMAND_LINE))
    const takesLong = isAuth || /^[ \t]*auth[ \t]/i.test(pending.toString('latin1', 0, 64))
    const line = this.#lines.next(takesLong ? MAX_AUTH_LINE : MAX_COMMAND_LINE)
    if (line === undefined) return undefined
    const verb = this.#verb
    if (line.kind === 'tooLong') return { kind: 'tooLong', verb }
    if (line.kind === 'holdsNul' || CONTROL_CHARACTER.test(line.text)) return { kind: 'control_character', verb }
    return line
  }
}

/** The letters with which a line begins. The verb of an invalid line ends at any other octet. */
const verbOf = (line: string): string => /^[ \t]*([a-z]*)/i.exec(line)?.[1]?.toUpperCase() ?? ''

/** Control characters that no command contains: all but NUL, which `holdsNul` covers, and TAB. */
const CONTROL_CHARACTER = /[\x01-\x08\x0a-\x1f\x7f]/
