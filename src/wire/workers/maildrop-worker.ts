/**
 * Between popup and a pop3d worker: the start of the worker, the tickets of its sessions, and the
 * handoff of connections.
 */
import * as v from 'valibot'
import { type IpAddress, parseIpAddress } from '../ip-address.ts'
import { percentDecode, percentEncode, percentEncodePath } from '../key-values.ts'
import { isLoginMethod, isSessionId, type LoginMethod, type SessionId } from '../login-event.ts'
import { readMessage, requireMessage } from './control-channel.ts'

/**
 * The monitor's permission for a pop3d worker: one session may open one maildrop. The login process
 * carries it, but cannot make it, because the text is authenticated with a key of the monitor and
 * the worker.
 */
export type SessionTicket = {
  readonly id: SessionId
  readonly user: string
  /** Absolute path of the Maildir. */
  readonly maildir: string
  readonly ip: IpAddress
  readonly tls: boolean
  readonly method: LoginMethod
  /** Unix seconds; afterwards the ticket is invalid. */
  readonly expires: number
}

/** A ticket as received. It is valid only if HMAC-SHA256 of `signedText` is `mac`. */
export type PresentedTicket = { readonly ticket: SessionTicket; readonly signedText: string; readonly mac: string }

/** Longest ticket line, in octets without LF. */
export const MAX_SESSION_TICKET_LINE = 8192

/** The text under the MAC. */
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
  /^(session v=1 id=(\S+) ip=(\S+) tls=([01]) method=([a-z]+) expires=(\d{1,12}) user=(\S*) maildir=(\/\S*)) mac=([0-9a-f]{64})$/

/** Parses a ticket line; undefined for any other form. Does not check the MAC. */
export function parseSessionTicket(line: string): PresentedTicket | undefined {
  const match = LINE.exec(line)
  if (match === null) return undefined
  const [, signedText = '', id = '', address = '', tls, method = '', expires, name = '', path = '', mac = ''] = match
  const ip = parseIpAddress(address)
  const user = percentDecode(name)
  const maildir = percentDecode(path)
  if (!isSessionId(id) || ip === undefined || user === undefined || maildir === undefined) return undefined
  if (!isLoginMethod(method) || maildir.includes('\0')) return undefined
  const ticket = { id, user, maildir, ip, tls: tls === '1', method, expires: Number(expires) } as const
  // A text that the reader could parse in another way is not a ticket: one text, one meaning.
  return signedTextOf(ticket) === signedText ? { ticket, signedText, mac } : undefined
}

/*
 * The handoff channel is a Unix connection of a login process to a pop3d worker, through which
 * connections are handed over (docs/WIRE.md). Each `handoff` line belongs to one descriptor, in
 * the same order.
 */

/**
 * The first line of both sides: of the login process in place of a ticket, and of the worker when
 * it accepts descriptors.
 */
export const CHANNEL_LINE = 'handoff-channel v=1'

/** Most octets of the client that were read and are sent with its socket. */
export const MAX_READ_AHEAD = 131_072

/** Longest `handoff` line, in octets without LF. */
export const MAX_HANDOFF_LINE = MAX_SESSION_TICKET_LINE + 64

/**
 * Login process to worker: hands a socket over. `octets` octets of the client's input follow the
 * line.
 */
export type Handoff = { readonly n: number; readonly octets: number; readonly ticket: string }

/** The line, without LF. */
export const formatHandoff = ({ n, octets, ticket }: Handoff): string => `handoff n=${n} octets=${octets} ${ticket}`

/** Reads a `handoff` line; undefined for another line. The ticket is not checked. */
export function parseHandoff(line: string): Handoff | undefined {
  const [, n, octets, ticket] = /^handoff n=([1-9]\d{0,14}) octets=(0|[1-9]\d{0,5}) (.+)$/.exec(line) ?? []
  if (ticket === undefined || Number(octets) > MAX_READ_AHEAD) return undefined
  return { n: Number(n), octets: Number(octets), ticket }
}

/**
 * Worker to login process. `open`: the worker accepts sockets. `ended`: the session of a socket has
 * ended. `closing`: the worker accepts no more sockets, and the login process must end its side.
 */
export type HandoffReply =
  | { readonly type: 'open' }
  | { readonly type: 'ended'; readonly n: number }
  | { readonly type: 'closing' }

/** The line, without LF. */
export function formatHandoffReply(reply: HandoffReply): string {
  switch (reply.type) {
    case 'open':
      return CHANNEL_LINE
    case 'ended':
      return `ended n=${reply.n}`
    case 'closing':
      return 'closing'
  }
}

/** Reads a line of the worker; undefined if it is none. */
export function parseHandoffReply(line: string): HandoffReply | undefined {
  if (line === CHANNEL_LINE) return { type: 'open' }
  if (line === 'closing') return { type: 'closing' }
  const n = /^ended n=([1-9]\d{0,14})$/.exec(line)?.[1]
  return n === undefined ? undefined : { type: 'ended', n: Number(n) }
}

const seconds = v.pipe(v.number(), v.minValue(0))

const sessionIdText = v.pipe(v.string(), v.maxLength(32))

const usedTicket = v.strictObject({ id: sessionIdText, expires: v.number() })

export type UsedTicket = v.InferOutput<typeof usedTicket>

/** The settings of running sessions that a reload can change. */
const settings = v.strictObject({
  compat: v.picklist(['none', 'qmail']),
  sizes: v.picklist(['wire', 'file']),
  extraBlank: v.boolean(),
  lock: v.picklist(['none', 'exclusive']),
  /** Seconds without a command. */
  idleTime: seconds,
  /**
   * Seconds without a session after which the process ends with status 0. The next process accepts
   * the connections that then wait.
   */
  workerIdle: seconds,
  /** The capabilities after login (CAPA). */
  capabilities: v.strictObject({
    user: v.boolean(),
    sasl: v.array(v.string()),
    loginDelay: v.number(),
    implementation: v.string(),
  }),
})

export type MaildropWorkerSettings = v.InferOutput<typeof settings>

const start = v.strictObject({
  type: v.literal('start'),
  /**
   * The owner of the mail: the ids of the worker. Null if the monitor is not root and the worker
   * has them already.
   */
  ids: v.nullable(
    v.strictObject({ uid: v.pipe(v.number(), v.integer(), v.minValue(1)), gid: v.pipe(v.number(), v.integer()) }),
  ),
  /** Key of the session tickets: 32 octets, hexadecimal. */
  key: v.pipe(v.string(), v.regex(/^[0-9a-f]{64}$/)),
  /**
   * The account of the login processes. Besides root and the owner, no other account may connect.
   * Null if all processes have one account.
   */
  loginUid: v.nullable(v.pipe(v.number(), v.integer())),
  /** Tickets that the previous worker has accepted, with their ends in Unix seconds. */
  usedTickets: v.array(usedTicket),
  logLevel: v.picklist(['debug', 'info', 'warn', 'error']),
  /** The engine of the connections. */
  engine: v.picklist(['auto', 'node', 'epoll']),
  settings,
})

const change = v.strictObject({ type: v.literal('settings'), settings })

/** Sent to a running worker. Later sessions have these settings. */
export type MaildropWorkerChange = v.InferOutput<typeof change>

/** @throws TypeError, see requireMessage. */
export const parseMaildropWorkerChange = (message: unknown): MaildropWorkerChange => requireMessage(change, message)

/**
 * The first and only message of popup's monitor to a pop3d worker on its control channel. The
 * listening Unix socket is descriptor 4. The worker answers `{"type":"ready"}`, then reports its
 * sessions if LOGIN-DELAY is in force, and before a clean exit the tickets that it used. The worker
 * ends when the channel ends.
 */
export type MaildropWorkerStart = v.InferOutput<typeof start>

/** @throws TypeError, see requireMessage. */
export const parseMaildropWorkerStart = (message: unknown): MaildropWorkerStart => requireMessage(start, message)

const report = v.variant('type', [
  v.strictObject({ type: v.literal('ready') }),
  /** With LOGIN-DELAY: the ticket of this session was accepted. */
  v.strictObject({ type: v.literal('sessionBegun'), id: sessionIdText }),
  /** With LOGIN-DELAY: the maildrop of this session could not be opened. */
  v.strictObject({ type: v.literal('sessionRefused'), id: sessionIdText }),
  /** Last message before a clean exit: the accepted tickets that have not expired. */
  v.strictObject({ type: v.literal('usedTickets'), tickets: v.pipe(v.array(usedTicket), v.maxLength(100_000)) }),
])

export type MaildropWorkerReport = v.InferOutput<typeof report>

/** Reads a message of a worker; undefined if it is invalid. */
export const parseMaildropWorkerReport = (message: unknown): MaildropWorkerReport | undefined =>
  readMessage(report, message)
