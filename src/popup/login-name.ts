/**
 * The text that octets (one character each) stand for: UTF-8 if they are, else each octet is the character of its
 * number. Names in files and databases are texts; the wire has octets.
 */
export function decodeLogin(octets: string): string {
  if (!/[\x80-\xff]/.test(octets)) return octets
  const bytes = Buffer.from(octets, 'latin1')
  const text = bytes.toString('utf8')
  return Buffer.from(text, 'utf8').equals(bytes) ? text : octets
}

declare const octets: unique symbol
declare const text: unique symbol

/** A login name as the client sent it, one character per octet. */
export type LoginOctets = string & { readonly [octets]: 'LoginOctets' }

/** The same name as text: the one form that delays, intervals, files, databases and log lines know. */
export type LoginText = string & { readonly [text]: 'LoginText' }

export const isLoginOctets = (value: string): value is LoginOctets => /^[\x01-\xff]*$/.test(value)

/** Marks a name that a POP3 line or a SASL message carried. Throws TypeError if a character is no octet, or is NUL. */
export function loginOctets(value: string): LoginOctets {
  if (!isLoginOctets(value)) throw new TypeError('a login name holds octets other than NUL')
  return value
}

/** The text of a login name: UTF-8 where the octets are UTF-8, else each octet is the character of its number. */
export function loginText(login: LoginOctets): LoginText {
  const value = decodeLogin(login)
  if (!isLoginText(value)) throw new TypeError('the text of a login name holds no NUL')
  return value
}

const isLoginText = (value: string): value is LoginText => !value.includes('\0')
