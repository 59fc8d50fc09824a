/** The line ending of POP3 replies, RFC 1939 §3. */
export const CRLF = '\r\n'

/** The only line of a multi-line response that is a single dot ends it, RFC 1939 §3. */
export const TERMINATION = '.\r\n'

/**
 * `+OK ` and an optional text. The space stays also without text: some old clients need it (RFC
 * 1957).
 */
export const ok = (text = ''): string => `+OK ${text}${CRLF}`

/** `-ERR ` and a text. It must not begin with `[` unless that is a response code (RFC 2449 §8). */
export const err = (text: string): string => `-ERR ${text}${CRLF}`

/** `+ ` and base64, nothing else: a SASL challenge, RFC 5034 §4. */
export const challenge = (base64 = ''): string => `+ ${base64}${CRLF}`

/** A multi-line response. A line of it that begins with a dot gets one more, RFC 1939 §3. */
export const multiline = (lines: readonly string[]): string =>
  ok() + lines.map(line => (line.startsWith('.') ? `.${line}${CRLF}` : line + CRLF)).join('') + TERMINATION

/** Replies that both states give. */
export const LINE_TOO_LONG = err('line too long')
export const SYNTAX_ERROR = err('syntax error')

/** After so many overlong lines the connection is closed, spec/popup.md §2. */
export const OVERLONG_LINES_ALLOWED = 2

/** What a server can do, from which the answer to CAPA is made. */
export interface Capabilities {
  /** USER and PASS are of use on this connection. */
  readonly user: boolean
  /** SASL mechanisms of use on this connection, upper case. */
  readonly sasl: readonly string[]
  /** STLS would be accepted now. */
  readonly stls: boolean
  /** Seconds between two logins of one user, 0 = no minimum. */
  readonly loginDelay: number
  /** Days until the site deletes mail, RFC 2449 §6.7. */
  readonly expire: number | 'NEVER'
  /** Name of the server software, without its version before login. */
  readonly implementation: string
}

/**
 * The lines of the CAPA response (RFC 2449 §5; SASL RFC 5034 §6, AUTH-RESP-CODE RFC 3206 §6). What
 * is announced before login is announced after it too, except STLS, which is of no use there (RFC
 * 2595 §4).
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
