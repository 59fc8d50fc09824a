/** Commands of an SMTP client: taken apart, and cut from its octets. */
import { formatPath, type Mailbox, type PathFault, parsePath } from './address.ts'

/**
 * What a command line of the client means for a front. `line` is what the server reads, without its
 * line end.
 */
export type Command =
  | { readonly type: 'mail'; readonly line: string; readonly sender: Mailbox | undefined }
  | { readonly type: 'recipient'; readonly line: string; readonly recipient: Mailbox | undefined }
  | { readonly type: 'data' | 'reset' | 'quit' | 'auth' | 'other'; readonly line: string }
  /** HELO or EHLO. `name` is undefined if the client gave none, or one that servers refuse. */
  | {
      readonly type: 'hello'
      readonly verb: 'HELO' | 'EHLO'
      readonly line: string
      readonly name: string | undefined
      /** As the client sent it. */
      readonly sent: string
    }
  /** A command that no server may see from here. */
  | { readonly type: 'hidden' }
  /** BDAT: octets follow that are no commands. */
  | { readonly type: 'chunk' }
  | { readonly type: 'fault'; readonly reply: string }

/**
 * Octets of a command line, its end included (RFC 5321 section 4.5.3.1.4 asks for 512 and more with
 * extensions).
 */
export const MAX_COMMAND_LINE = 2048
/** Of a line that is part of an AUTH dialogue (RFC 4954 section 4). */
export const MAX_AUTH_LINE = 12_288

/**
 * Verbs that are answered here. STARTTLS would blind the front. The others trust a local peer: a
 * server on a socket pair
 * may start a queue run for ETRN, or take another address from XCLIENT. SEND, SOML and SAML begin a
 * message, as MAIL does.
 */
const HIDDEN: ReadonlySet<string> = new Set(['STARTTLS', 'ETRN', 'TURN', 'ATRN', 'EXPN', 'SEND', 'SOML', 'SAML'])

/** Names of hosts and address literals; servers refuse others. */
const HOST_NAME = /^[A-Za-z0-9.:[\]-]+$/

/** Reads a line without its end, one character per octet. It holds no control octet but TAB. */
export function parseCommand(text: string): Command {
  // Postfix and sendmail skip space before the verb: what is judged here must be what they read.
  const [, verb = '', rest] = /^[ \t]*([^ \t]*)(?:[ \t](.*))?$/s.exec(text) ?? []
  const name = verb.toUpperCase()
  if (HIDDEN.has(name) || name.startsWith('X')) return { type: 'hidden' }
  const line = rest === undefined ? verb : `${verb} ${rest}`
  switch (name) {
    case 'MAIL': {
      const path = parsePath(rest ?? '', 'FROM')
      if (typeof path === 'string') return { type: 'fault', reply: faultReply(path, 'MAIL') }
      if (path.parameters.some(each => /^body=binarymime$/i.test(each)))
        return { type: 'fault', reply: '501 5.5.4 BODY=BINARYMIME is not supported' }
      return { type: 'mail', line: `MAIL ${formatPath(path, 'FROM')}`, sender: path.mailbox }
    }
    case 'RCPT': {
      const path = parsePath(rest ?? '', 'TO')
      if (typeof path === 'string') return { type: 'fault', reply: faultReply(path, 'RCPT') }
      return { type: 'recipient', line: `RCPT ${formatPath(path, 'TO')}`, recipient: path.mailbox }
    }
    case 'HELO':
    case 'EHLO': {
      const sent = (rest ?? '').trim()
      return { type: 'hello', verb: name, line, name: HOST_NAME.test(sent) ? sent : undefined, sent }
    }
    case 'BDAT':
      return { type: 'chunk' }
    case 'DATA':
      return { type: 'data', line }
    case 'RSET':
      return { type: 'reset', line }
    case 'QUIT':
      return { type: 'quit', line }
    case 'AUTH':
      return { type: 'auth', line }
    default:
      return { type: 'other', line }
  }
}

function faultReply(fault: PathFault, verb: 'MAIL' | 'RCPT'): string {
  switch (fault) {
    case 'syntax':
      return `501 5.5.4 syntax: ${verb === 'MAIL' ? 'MAIL FROM' : 'RCPT TO'}:<address>`
    case 'too_long':
      return `501 ${verb === 'MAIL' ? '5.1.7' : '5.1.3'} the address is too long`
    case 'not_utf8':
      return '501 5.6.7 the address is not UTF-8'
  }
}

/** A line of the client, without its end; one character per octet. */
export type CommandLine =
  | { readonly type: 'line'; readonly text: string }
  | { readonly type: 'too_long' | 'control_character' | 'tls_hello' }

const LF = 0x0a
const CR = 0x0d
/** The first octet of a TLS record that holds a handshake. */
const TLS_HANDSHAKE = 0x16
const NOTHING: Buffer = Buffer.alloc(0)

/**
 * Cuts octets into command lines. A line ends with LF, and one CR before that belongs to the end.
 * The reader holds what was
 * pushed until it is taken, and of an unfinished line at most MAX_AUTH_LINE octets.
 */
export class CommandReader {
  #octets: Buffer = NOTHING
  #isDiscarding = false

  push(octets: Uint8Array): void {
    this.#octets = Buffer.concat([this.#octets, octets])
  }

  /** Octets that belong to no line taken. */
  get pending(): number {
    return this.#octets.length
  }

  /** Takes everything pending. */
  rest(): Buffer {
    const rest = this.#octets
    this.#octets = NOTHING
    return rest
  }

  /** Forgets an unfinished line. */
  dropRest(): void {
    this.#octets = NOTHING
  }

  /**
   * The next line, or undefined if more octets are needed. `isAuth`: the line answers a challenge
   * of AUTH.
   */
  next(isAuth: boolean): CommandLine | undefined {
    const octets = this.#octets
    if (octets[0] === TLS_HANDSHAKE && !this.#isDiscarding && !isAuth) return { type: 'tls_hello' }
    const limit =
      isAuth || /^[ \t]*auth[ \t]/i.test(octets.toString('latin1', 0, 64)) ? MAX_AUTH_LINE : MAX_COMMAND_LINE
    const end = octets.indexOf(LF)
    if (end < 0) {
      if (octets.length >= limit) this.#isDiscarding = true
      if (this.#isDiscarding) this.#octets = NOTHING
      return undefined
    }
    this.#octets = octets.subarray(end + 1)
    const isTooLong = this.#isDiscarding || end + 1 > limit
    this.#isDiscarding = false
    if (isTooLong) return { type: 'too_long' }
    const text = octets.toString('latin1', 0, end > 0 && octets[end - 1] === CR ? end - 1 : end)
    return /[\0-\x08\x0a-\x1f\x7f]/.test(text) ? { type: 'control_character' } : { type: 'line', text }
  }
}
