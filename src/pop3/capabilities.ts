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
 * The lines of the CAPA response (RFC 2449 §5; SASL RFC 5034 §6, AUTH-RESP-CODE RFC 3206 §6). What is announced before
 * login is announced after it too, except STLS, which is of no use there (RFC 2595 §4).
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
