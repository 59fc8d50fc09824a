/** Login events between popup and authd, ids of sessions, and names of logins. */
import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { parseKeyValues, percentDecode, percentEncode } from './key-values.ts'

declare const checked: unique symbol
/** The id of a POP3 session, `7f3a.12`, the same in the log lines of all programs. */
export type SessionId = string & { readonly [checked]: 'SessionId' }

/** True for the form of session ids: hexadecimal process id, dot, decimal counter. */
export const isSessionId = (text: string): text is SessionId => /^[0-9a-f]{1,8}\.[0-9]{1,12}$/.test(text)

/** The id of a process's session. `counter`: the number of the session, from 1. */
export function sessionId(pid: number, counter: number): SessionId {
  const id = `${pid.toString(16)}.${counter}`
  if (!isSessionId(id)) throw new RangeError(`no session id: pid ${pid}, counter ${counter}`)
  return id
}

/** The msg-id of a greeting for APOP, which differs for each connection: `<ID.SECONDS@HOST>`. */
export const formatTimestamp = (id: SessionId, unixSeconds: number, host: string): string =>
  `<${id}.${unixSeconds}@${host}>`

/**
 * The session id in the greeting of popup, which may have no angle brackets; undefined for another
 * server.
 */
export function sessionIdOfGreeting(greeting: string): SessionId | undefined {
  const text = /^\+OK (?:.*<([^<>]+)>|([^<>\s]+))\s*$/.exec(greeting)
  const id = /^([0-9a-f]{1,8}\.[0-9]{1,12})\.\d+@[^@]+$/.exec(text?.[1] ?? text?.[2] ?? '')?.[1]
  return id !== undefined && isSessionId(id) ? id : undefined
}

/** How the client proved its login: USER/PASS, APOP, or SASL. */
export type LoginMethod = 'pass' | 'apop' | 'sasl'

export const isLoginMethod = (text: string): text is LoginMethod =>
  text === 'pass' || text === 'apop' || text === 'sasl'

/**
 * Report that an address proved a login by POP3. authd decides whether the address gets a grant.
 */
export type LoginEvent = {
  /** Session id: the same in every log line of the session. */
  readonly id: string
  readonly ip: IpAddress
  /** The program that accepted the login, e.g. `popup`, `ipop3d`; at most 32 characters. */
  readonly daemon: string
  readonly tls: boolean
  readonly method: LoginMethod
  /** Text of the login name; at most 255 characters. */
  readonly user: string
  /** Seconds since the login, for an event that is sent late. Undefined: 0. */
  readonly age?: number
}

/** Why a login does not open the relay. The text is the `reason` of the answer `refused`. */
export const GRANT_REFUSALS = ['loopback', 'never', 'proxy', 'own', 'private', 'blocked'] as const

/** Why a line is not a login event of version 1. */
const EVENT_FAULTS = ['syntax', 'version', 'key', 'value'] as const

/** Every `reason` of the answer `refused`. docs/WIRE.md has their meanings. */
export const LOGIN_REFUSALS = [...GRANT_REFUSALS, 'unstorable', ...EVENT_FAULTS] as const
export type LoginRefusal = (typeof LOGIN_REFUSALS)[number]

const isLoginRefusal = (word: string): word is LoginRefusal => LOGIN_REFUSALS.some(reason => reason === word)

/** The answer of authd to an event. `until`: Unix seconds. */
export type LoginAnswer =
  | { readonly verdict: 'committed'; readonly id: string; readonly until: number }
  | { readonly verdict: 'queued'; readonly id: string }
  | { readonly verdict: 'refused'; readonly id: string; readonly reason: LoginRefusal }

/** A line that is not a login event of version 1. `id`: for the answer; `-` if it is invalid. */
export type BadLoginEvent = { readonly reason: (typeof EVENT_FAULTS)[number]; readonly id: string }

/**
 * Longest event or answer line, in octets without LF. Longer lines are refused unread. A name of
 * 255 characters of any script fits.
 */
export const MAX_LOGIN_EVENT_LINE = 4096

const ID = /^[A-Za-z0-9._-]{1,64}$/
const DAEMON = /^[A-Za-z0-9._/-]{1,32}$/
const KEYS = ['v', 'id', 'ip', 'daemon', 'tls', 'method', 'user']
/** Whole seconds. */
const AGE = /^\d{1,6}$/

/** The line of an event, without LF (docs/WIRE.md). */
export function formatLoginEvent({ id, ip, daemon, tls, method, user, age }: LoginEvent): string {
  const name = percentEncode([...user].slice(0, 255).join(''))
  const late = age === undefined ? '' : ` age=${age}`
  return `login v=1 id=${id} ip=${ip} daemon=${daemon} tls=${tls ? 1 : 0} method=${method} user=${name}${late}`
}

/**
 * Inverse of formatLoginEvent; never throws. Unknown versions, unknown keys and missing keys are
 * refused.
 */
export function parseLoginEvent(line: string): LoginEvent | BadLoginEvent {
  const pairs = line.startsWith('login ') ? parseKeyValues(line.slice('login '.length)) : undefined
  if (pairs === undefined) return { reason: 'syntax', id: '-' }
  const get = (key: string): string => pairs.get(key) ?? ''
  const id = ID.test(get('id')) ? get('id') : '-'
  if (get('v') !== '1') return { reason: 'version', id }
  const age = pairs.get('age')
  const size = age === undefined ? KEYS.length : KEYS.length + 1
  if (pairs.size !== size || KEYS.some(key => !pairs.has(key))) return { reason: 'key', id }
  const ip = parseIpAddress(get('ip'))
  const user = percentDecode(get('user'))
  const method = get('method')
  const tls = get('tls')
  const daemon = get('daemon')
  const valuesAreSound =
    id !== '-' && (tls === '0' || tls === '1') && DAEMON.test(daemon) && (age === undefined || AGE.test(age))
  if (!valuesAreSound || ip === undefined || !isLoginMethod(method) || !isUserName(user)) return { reason: 'value', id }
  return { id, ip, daemon, tls: tls === '1', method, user, ...(age === undefined ? {} : { age: Number(age) }) }
}

/** One answer line, without LF. */
export function formatLoginAnswer(answer: LoginAnswer): string {
  switch (answer.verdict) {
    case 'committed':
      return `ok id=${answer.id} committed until=${answer.until}`
    case 'queued':
      return `ok id=${answer.id} queued`
    case 'refused':
      return `refused id=${answer.id} reason=${answer.reason}`
  }
}

const ANSWER =
  /^(?:ok id=(?<id>[A-Za-z0-9._-]{1,64}) (?:committed until=(?<until>\d{1,15})|(?<queued>queued))|refused id=(?<refusedId>[A-Za-z0-9._-]{1,64}) reason=(?<reason>[a-z_-]{1,64}))$/

/** Inverse of formatLoginAnswer; undefined for anything else. */
export function parseLoginAnswer(line: string): LoginAnswer | undefined {
  const groups = ANSWER.exec(line)?.groups
  if (groups === undefined) return undefined
  const { id = '', until, refusedId = '', reason } = groups
  if (reason !== undefined) return isLoginRefusal(reason) ? { verdict: 'refused', id: refusedId, reason } : undefined
  if (until !== undefined) return { verdict: 'committed', id, until: Number(until) }
  return { verdict: 'queued', id }
}

/** True for a name that the database accepts: no NUL, at most 255 characters. */
const isUserName = (user: string | undefined): user is string =>
  user !== undefined && !user.includes('\0') && [...user].length <= 255

/**
 * The text by which logins are compared. ASCII letters become lower case; other letters do not,
 * because POP3 servers differ there. Dots at the end of a domain are left out. The database's
 * function login_key returns the same text (sql/000010).
 */
export function loginKey(login: string): string {
  const key = login.replace(/[A-Z]+/g, letters => letters.toLowerCase())
  return key.includes('@') ? key.replace(/\.+$/, '') : key
}

/**
 * Decodes octets, one character each: as UTF-8 if they are valid UTF-8, otherwise as Latin-1. Names
 * are octets in protocols, and texts in files and databases.
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

/** A login name as text, for delays, intervals, files, databases and log lines. */
export type LoginText = string & { readonly [text]: 'LoginText' }

export const isLoginOctets = (value: string): value is LoginOctets => /^[\x01-\xff]*$/.test(value)

/** Marks a name as LoginOctets. Throws TypeError if a character is not an octet, or is NUL. */
export function loginOctets(value: string): LoginOctets {
  if (!isLoginOctets(value)) throw new TypeError('a login name holds octets other than NUL')
  return value
}

/** The text of a login name, by decodeLogin. */
export function loginText(login: LoginOctets): LoginText {
  const value = decodeLogin(login)
  if (!isLoginText(value)) throw new TypeError('the text of a login name holds no NUL')
  return value
}

const isLoginText = (value: string): value is LoginText => !value.includes('\0')
