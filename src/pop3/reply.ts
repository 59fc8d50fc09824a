/** POP3 replies: their forms, the texts that both states share, and the lines of CAPA. */

/** Line end of POP3 replies (RFC 1939 §3). */
export const CRLF = '\r\n'

/** Last line of a multi-line response (RFC 1939 §3). */
export const TERMINATION = '.\r\n'

/**
 * Formats `+OK ` and an optional text. The space stays without text too, because some old clients
 * need it (RFC 1957).
 */
export const ok = (text = ''): string => `+OK ${text}${CRLF}`

/**
 * Formats `-ERR ` and a text. A text that begins with `[` must begin with a response code (RFC 2449
 * §8).
 */
export const err = (text: string): string => `-ERR ${text}${CRLF}`

/** Formats a SASL challenge: `+ ` and base64 (RFC 5034 §4). */
export const challenge = (base64 = ''): string => `+ ${base64}${CRLF}`

/** Formats a multi-line response. A line that begins with a dot gets a second dot (RFC 1939 §3). */
export const multiline = (lines: readonly string[]): string =>
  ok() + lines.map(line => (line.startsWith('.') ? `.${line}${CRLF}` : line + CRLF)).join('') + TERMINATION

/** Replies of both AUTHORIZATION and TRANSACTION. */
export const LINE_TOO_LONG = err('line too long')
export const SYNTAX_ERROR = err('syntax error')

/**
 * Overlong lines that a session survives; the next one closes the connection (spec/popup.md §2).
 */
export const OVERLONG_LINES_ALLOWED = 2

/** Facts from which the reply to CAPA is made. */
export interface Capabilities {
  /** True if USER and PASS may be used on this connection. */
  readonly user: boolean
  /** SASL mechanisms that may be used on this connection, in upper case. */
  readonly sasl: readonly string[]
  /** True if STLS is accepted now. */
  readonly stls: boolean
  /** Minimum time in seconds between two logins of one user; 0: no minimum. */
  readonly loginDelay: number
  /** Days after which the site deletes messages (RFC 2449 §6.7). */
  readonly expire: number | 'NEVER'
  /** Name of the server software. Before login it has no version. */
  readonly implementation: string
}

/**
 * Formats the lines of the CAPA response (RFC 2449 §5; SASL: RFC 5034 §6; AUTH-RESP-CODE: RFC 3206
 * §6). Each capability is announced before and after login, except STLS, which is useless after
 * login (RFC 2595 §4).
 */
export function capabilityLines(
  state: 'AUTHORIZATION' | 'TRANSACTION',
  { user, sasl, stls, loginDelay, expire, implementation }: Capabilities,
): readonly string[] {
  const lines = ['TOP', 'UIDL']
  if (user) lines.push('USER')
  if (sasl.length > 0) lines.push(`SASL ${sasl.join(' ')}`)
  if (stls && state === 'AUTHORIZATION') lines.push('STLS')
  lines.push('RESP-CODES', 'AUTH-RESP-CODE', 'PIPELINING')
  if (loginDelay > 0) lines.push(`LOGIN-DELAY ${loginDelay}`)
  lines.push(`EXPIRE ${expire}`, `IMPLEMENTATION ${implementation}`)
  return lines
}
