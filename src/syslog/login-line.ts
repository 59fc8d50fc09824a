/** The login lines that popup writes to syslog (spec/syslog.md §6): formatting and parsing them. */
import type { IpAddress } from '../wire/ip-address.ts'
import { isLoginMethod, type LoginMethod } from '../wire/login-event.ts'
import { readParts } from './syslog-line.ts'

/** Tag of a login line. The dialect accepts no other tag. */
export const LOGIN_TAG = 'qmail-pop3d'
/** Tag of every other line, so that no failure line can look like a login. */
export const FAIL_TAG = 'qmail-popup'

/** The facts of a login or of a failed login. `ip` undefined: the address is unknown. */
export type LoginLineFacts = {
  readonly ip: IpAddress | undefined
  readonly tls: boolean
  readonly method: LoginMethod
  readonly user: string
}

/**
 * Why a login failed. `badauth`: wrong name or password. `crash`: the checker crashed. `temp`: the
 * checker could not decide. `toolong`: the input is too long for the checker. `notls`: TLS is
 * required.
 */
export type FailReason = 'badauth' | 'crash' | 'temp' | 'toolong' | 'notls'

/**
 * Message of a login, sent under LOGIN_TAG. The user stands last, so that no field follows the text
 * of a client.
 */
export const formatLoginLine = ({ ip, tls, method, user }: LoginLineFacts): string =>
  `authrelay v=1 ev=login ip=${ip ?? 'unknown'} tls=${tls ? 1 : 0} method=${method} user=${encodeUser(user)}`

/** Message of a failed login, sent under FAIL_TAG. */
export const formatFailLine = ({ ip, tls, method, user }: LoginLineFacts, reason: FailReason): string =>
  `authrelay v=1 ev=fail ip=${ip ?? 'unknown'} tls=${tls ? 1 : 0} method=${method} reason=${reason} user=${encodeUser(user)}`

/** Message of a refused preamble (wrong password, or no numeric address), sent under FAIL_TAG. */
export const formatPreambleFailLine = (ip: IpAddress | undefined, reason: 'badpass' | 'badhost'): string =>
  `authrelay v=1 ev=sslfail ip=${ip ?? 'unknown'} reason=${reason}`

/** Message of a session that ended before login, sent under FAIL_TAG. */
export const formatAbortLine = (ip: IpAddress | undefined, tls: boolean, user: string): string =>
  `authrelay v=1 ev=abort ip=${ip ?? 'unknown'} tls=${tls ? 1 : 0} user=${encodeUser(user)}`

const LOGIN =
  /^authrelay v=1 ev=login ip=([0-9a-f:.]{2,45}) tls=([01]) method=([a-z]+) user=((?:[A-Za-z0-9._@+-]|%[0-9A-F]{2}){1,128}~?)(?: ts=\d{1,12} mac=[0-9a-f]{32})?$/

/**
 * Inverse of formatLoginLine; undefined for every other message. `address` is not parsed. `cut`:
 * the name is the beginning of a longer one. The original's fields `ts` and `mac` are not checked.
 */
export function parseLoginLine(
  message: string,
): { address: string; tls: boolean; method: LoginMethod; user: string; cut: boolean } | undefined {
  const parts = readParts(LOGIN, message)
  if (parts === undefined) return undefined
  const [, address, tls, method, user] = parts
  if (!isLoginMethod(method)) return undefined
  return { address, tls: tls === '1', method, user: decodeUser(user), cut: user.endsWith('~') }
}

const MAX_USER = 128

/**
 * Encodes a name (ENC of spec/syslog.md §6). Each octet outside `[A-Za-z0-9._@+-]` becomes `%XX`.
 * The result has at most 128 characters and is not cut inside a `%XX`; a cut name then gets a `~`.
 * An empty name becomes `-`.
 */
export function encodeUser(user: string): string {
  let text = ''
  for (const octet of Buffer.from(user)) {
    const character = String.fromCharCode(octet)
    const encoded = /[A-Za-z0-9._@+-]/.test(character)
      ? character
      : `%${octet.toString(16).toUpperCase().padStart(2, '0')}`
    if (text.length + encoded.length > MAX_USER) return `${text}~`
    text += encoded
  }
  return text === '' ? '-' : text
}

/**
 * Decodes a name. Octets that are not UTF-8, such as a character cut in two, become U+FFFD. The `~`
 * of a cut name stays.
 */
const decodeUser = (text: string): string =>
  text.includes('%')
    ? Buffer.from(
        text.replace(/%([0-9A-F]{2})/g, (_, hex: string) => String.fromCharCode(Number.parseInt(hex, 16))),
        'latin1',
      ).toString('utf8')
    : text
