import { familyOf, type IpAddress, parseIpAddress } from './ip-address.ts'

/**
 * What a TLS proxy says of its client before the client's first byte: who he is, and the password
 * that popup and the proxy share.
 */
export type SslPreamble = { readonly host: IpAddress; readonly pass: string }

/** Longest command, CRLF included (spec/sslwrap.md §3). */
export const SSL_PREAMBLE_MAX_OCTETS = 255

/** True if the text can stand as the password: 1 to 200 printable ASCII bytes, blanks and colons among them. */
export const isPreamblePassword = (text: string): boolean => /^[\x20-\x7e]{1,200}$/.test(text)

/**
 * The command with its CRLF. IPv6 goes in brackets. Throws a TypeError (without the password) if
 * the password has no form on the wire.
 */
export function formatSslPreamble({ host, pass }: SslPreamble): string {
  if (!isPreamblePassword(pass)) throw new TypeError('the preamble password must be 1 to 200 printable ASCII bytes')
  return `SSL ${familyOf(host) === 6 ? `[${host}]` : host}:${pass}\r\n`
}

/**
 * Parses a line without its line end. Undefined if the verb is not SSL at all; 'malformed' if it
 * is, and the rest is not
 * `host:pass`. Whether the password is right, and whether the peer may say this, is the caller's matter.
 * An IPv4 host ends at the first colon and a bracketed one at its bracket, so that the password may
 * hold colons (spec/sslwrap.md §3).
 */
export function parseSslPreamble(line: string): SslPreamble | 'malformed' | undefined {
  if (!/^ssl(?: |$)/i.test(line)) return undefined
  if (line.length + 2 > SSL_PREAMBLE_MAX_OCTETS) return 'malformed'
  const bracketed = line[4] === '['
  const end = line.indexOf(bracketed ? ']:' : ':', 4)
  if (end < 0) return 'malformed'
  const text = line.slice(bracketed ? 5 : 4, end)
  const host = text.includes(':') === bracketed ? parseIpAddress(text) : undefined
  const pass = line.slice(end + (bracketed ? 2 : 1))
  return host === undefined || !isPreamblePassword(pass) ? 'malformed' : { host, pass }
}
