import { type IpAddress, parseIpAddress } from './ip-address.ts'
import { percentDecode, percentEncode, percentEncodePath } from './key-values.ts'
import type { LoginMethod } from './login-event.ts'

declare const checked: unique symbol
/** Names one POP3 session in every log line, from sslwrap through popup and pop3d to authd: `7f3a.12`. */
export type SessionId = string & { readonly [checked]: 'SessionId' }

/** A session id as this project's programs make them: hexadecimal process id, dot, decimal counter. */
export const isSessionId = (text: string): text is SessionId => /^[0-9a-f]{1,8}\.[0-9]{1,12}$/.test(text)

/** The id of a process's n-th session; n counts from 1. */
export function sessionId(pid: number, counter: number): SessionId {
  const id = `${pid.toString(16)}.${counter}`
  if (!isSessionId(id)) throw new RangeError(`no session id: pid ${pid}, counter ${counter}`)
  return id
}

/** The msg-id of a greeting, which APOP digests: `<ID.SECONDS@HOST>`, different for every connection (RFC 1939 §7). */
export const formatTimestamp = (id: SessionId, unixSeconds: number, host: string): string =>
  `<${id}.${unixSeconds}@${host}>`

/**
 * The session id in the greeting of our own popup, which may do without the brackets; undefined if
 * another server speaks.
 */
export function sessionIdOfGreeting(greeting: string): SessionId | undefined {
  const text = /^\+OK (?:.*<([^<>]+)>|([^<>\s]+))\s*$/.exec(greeting)
  const id = /^([0-9a-f]{1,8}\.[0-9]{1,12})\.\d+@[^@]+$/.exec(text?.[1] ?? text?.[2] ?? '')?.[1]
  return id !== undefined && isSessionId(id) ? id : undefined
}

/**
 * The monitor's word to a pop3d worker that one session may open one maildrop. The login process carries it, but
 * cannot make it: the text is authenticated with a key that only monitor and worker know.
 */
export type SessionTicket = {
  readonly id: SessionId
  readonly user: string
  /** Absolute path of the Maildir. */
  readonly maildir: string
  readonly ip: IpAddress
  readonly tls: boolean
  readonly method: LoginMethod
  /** Unix seconds; after that the ticket is void. */
  readonly expires: number
}

/** A ticket as received: believe `ticket` only after HMAC-SHA256 of `signedText` was found equal to `mac`. */
export type PresentedTicket = { readonly ticket: SessionTicket; readonly signedText: string; readonly mac: string }

/** Longest ticket line, in octets without LF. */
export const MAX_SESSION_TICKET_LINE = 8192

/** What the MAC covers. */
export function signedTextOf(ticket: SessionTicket): string {
  const { id, user, maildir, ip, tls, method, expires } = ticket
  return `session v=1 id=${id} ip=${ip} tls=${tls ? 1 : 0} method=${method} expires=${expires} user=${percentEncode(user)} maildir=${percentEncodePath(maildir)}`
}

/** The ticket line, without LF. `mac` gives the lower-case hexadecimal HMAC-SHA256 of a text. */
export function formatSessionTicket(ticket: SessionTicket, mac: (text: string) => string): string {
  const text = signedTextOf(ticket)
  return `${text} mac=${mac(text)}`
}

const LINE =
  /^(session v=1 id=(\S+) ip=(\S+) tls=([01]) method=(pass|apop|sasl) expires=(\d{1,12}) user=(\S*) maildir=(\/\S*)) mac=([0-9a-f]{64})$/

/** Reads a ticket line; undefined if it has not exactly the form of formatSessionTicket. Checks no MAC. */
export function parseSessionTicket(line: string): PresentedTicket | undefined {
  const [, signedText, id, address, tls, method, expires, name, path, mac] = LINE.exec(line) ?? []
  if (signedText === undefined || id === undefined || mac === undefined) return undefined
  const ip = parseIpAddress(address ?? '')
  const user = percentDecode(name ?? '')
  const maildir = percentDecode(path ?? '')
  if (!isSessionId(id) || ip === undefined || user === undefined || maildir === undefined) return undefined
  if (method !== 'pass' && method !== 'apop' && method !== 'sasl') return undefined
  if (maildir.includes('\0')) return undefined
  const ticket = { id, user, maildir, ip, tls: tls === '1', method, expires: Number(expires) } as const
  // Whatever the reader would have understood otherwise is no ticket: one text, one meaning.
  return signedTextOf(ticket) === signedText ? { ticket, signedText, mac } : undefined
}
