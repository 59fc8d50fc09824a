/** The line ending of POP3 replies, RFC 1939 §3. */
export const CRLF = '\r\n'

/** The only line of a multi-line response that is a single dot ends it, RFC 1939 §3. */
export const TERMINATION = '.\r\n'

/** `+OK ` and an optional text. The space stays also without text: some old clients need it (RFC 1957). */
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
