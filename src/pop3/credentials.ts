/** A login name and its password, one character per octet. */
export interface Credentials {
  readonly login: string
  readonly secret: string
}

/**
 * The message of SASL PLAIN, `[authzid] NUL authcid NUL passwd` (RFC 4616 §2). Undefined if it is
 * not UTF-8, holds other
 * than two NULs, has an empty name or password or a control character in the name (SASLprep prohibits them), or asks
 * to act as somebody else, which no POP3 user may. Name and password are handed on as sent: preparing them would change
 * passwords that were stored unprepared.
 */
export function parsePlainMessage(message: string): Credentials | undefined {
  const [authzid, login, secret, ...more] = message.split('\0')
  if (authzid === undefined || login === undefined || secret === undefined || more.length > 0) return undefined
  if (authzid !== '' && authzid !== login) return undefined
  return isName(login) && secret !== '' && isUtf8(message) ? { login, secret } : undefined
}

/** The two answers of AUTH LOGIN (no RFC; as Outlook sends them), under the same conditions. */
export function parseLoginAnswers(login: string, secret: string): Credentials | undefined {
  return isName(login) && secret !== '' && !secret.includes('\0') ? { login, secret } : undefined
}

const isName = (login: string): boolean => login !== '' && !/[\x00-\x1f\x7f]/.test(login)

function isUtf8(octets: string): boolean {
  const bytes = Buffer.from(octets, 'latin1')
  return bytes.equals(Buffer.from(bytes.toString('utf8'), 'utf8'))
}
