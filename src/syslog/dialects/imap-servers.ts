/** Dialects of servers for POP3 and IMAP. */

import type { LoginMethod } from '../../wire/login-event.ts'
import type { Dialect, DialectFields } from '../dialect.ts'
import { parseOwnFileLine, partsOf, readParts } from '../syslog-line.ts'

// The closing bracket is required: host names are cut at 80 octets, and a cut address could be
// another valid address.
const IPOP3D_HOST = String.raw`(?:[A-Za-z0-9.-]{1,80} )?\[([0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,16})?)\]`
const IPOP3D_POP3 = new RegExp(
  String.raw`^(Login|Auth|APOP) user=(\S{1,80}) host=${IPOP3D_HOST}(?: nmsgs=\d{1,10}/\d{1,10}| no mailbox)$`,
)
const IPOP3D_IMAP = new RegExp(
  String.raw`^(Login|Authenticated) user=(\S{1,80}) host=${IPOP3D_HOST}(?: mech=[\w-]{1,40})?$`,
)

const IPOP3D_METHODS: ReadonlyMap<string, LoginMethod> = new Map([
  ['APOP', 'apop'],
  ['Auth', 'sasl'],
  ['Authenticated', 'sasl'],
])

/**
 * University of Washington ipop3d and imapd (spec/syslog.md §2). "Admin Login" and
 * "Preauthenticated" are no logins.
 */
export const ipop3d: Dialect = {
  name: 'ipop3d',
  setting: 'check_daemon_ipop3d',
  tags: ['ipop3d', 'ipop3sd', 'ipop2d', 'sipop3d', 'imapd', 'imapsd', 'simapd'],
  doc: 'University of Washington ipop3d and imapd',
  // ipop3d cuts the login with `%.80s` and does not mark the cut.
  longestLogin: 80,
  read(message, tag) {
    const imap = tag.includes('imap')
    const parts = readParts(imap ? IPOP3D_IMAP : IPOP3D_POP3, message)
    if (parts === undefined) return undefined
    const [, verb, login, address] = parts
    return { kind: 'login', address, login, imap, method: IPOP3D_METHODS.get(verb) ?? 'pass' }
  },
}

// `Login` up to 2.3, `Logged in` from 2.4. Only the default order of login_log_format_elements is
// accepted. The name has no `<`, `>`, `,` or space, because Dovecot escapes none of them. Text
// after lip= is never parsed for an address.
const DOVECOT_LOGIN =
  /^(pop3|imap)-login: (?:Login|Logged in): user=<([^<>,\s]{1,80})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}(|, .*\S)$/

/**
 * Dovecot cuts a name above 80 octets to 74 to 77 octets, because it cuts no character in two, and
 * appends three dots.
 */
const DOVECOT_CUT_NAME = /\.\.\.$/
const DOVECOT_SHORTEST_CUT = 77

/**
 * Dovecot, all versions to 2.4, through syslog, its own log file or standard output (spec/syslog.md
 * §7).
 */
export const dovecot: Dialect = {
  name: 'dovecot',
  setting: 'check_daemon_dovecot',
  tags: ['dovecot'],
  doc: 'Dovecot to 2.4',
  longestLogin: 255,
  read(message) {
    // On standard output, for example in a container, the message begins with Dovecot's own stamp
    // and level.
    const text = parseOwnFileLine(message)?.message ?? message
    const parts = readParts(DOVECOT_LOGIN, text)
    if (parts === undefined) return undefined
    const [, service, login, mechanism, address, rest] = parts
    return {
      kind: 'login',
      address,
      login,
      cut: DOVECOT_CUT_NAME.test(login) && Buffer.byteLength(login) >= DOVECOT_SHORTEST_CUT,
      imap: service === 'imap',
      tls: /, TLS(?:,|$)/.test(rest),
      method: dovecotMethod(mechanism),
    }
  },
}

function dovecotMethod(mechanism: string): LoginMethod {
  if (mechanism === 'APOP') return 'apop'
  return mechanism === 'PLAIN' ? 'pass' : 'sasl'
}

// The login stands also before the words of success, where a client could forge the rest of the
// line. So the pattern accepts no space, bracket or comma in the login, and only listed words after
// `lip=`. The message must be shorter than each limit at which a syslogd cuts, because a cut could
// end a failure line behind a forged success.
const DOVECOT_MAX_PROXY_MESSAGE = 600
const DOVECOT_PROXY_NAME = String.raw`[^<>(),\s]{1,128}`
const DOVECOT_PROXIED_LOGIN = new RegExp(
  String.raw`^(pop3|imap)-login: proxy\((${DOVECOT_PROXY_NAME}?)(?:,[\w.:[\]-]{1,80})?\): ` +
    String.raw`[Ss]tarted proxying to (?:<[\w.:[\]-]{1,80}> \(\d{1,6}\.\d{3} secs\)|[\w.:[\]-]{1,80}(?:/${DOVECOT_PROXY_NAME})?): ` +
    String.raw`user=<(${DOVECOT_PROXY_NAME})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}` +
    String.raw`((?:, (?:mpid=\d{1,10}|secured|TLS|session=<[\w+/=]{1,64}>)){0,4})$`,
)

/**
 * A Dovecot that passes its clients to other servers. The server behind has accepted the login when
 * the proxy writes this line. The servers behind log the address of the proxy, unless they trust it
 * (`login_trusted_networks`).
 */
export const dovecotProxy: Dialect = {
  name: 'dovecot-proxy',
  setting: 'check_daemon_dovecot_proxy',
  tags: ['dovecot'],
  doc: 'Dovecot as a proxy or director',
  longestLogin: 77,
  read(message) {
    if (message.length > DOVECOT_MAX_PROXY_MESSAGE) return undefined
    const text = parseOwnFileLine(message)?.message ?? message
    const parts = readParts(DOVECOT_PROXIED_LOGIN, text)
    if (parts === undefined) return undefined
    const [, service, name, login, mechanism, address, rest] = parts
    if (name !== login) return undefined
    return {
      kind: 'login',
      address,
      login,
      imap: service === 'imap',
      tls: /, TLS(?:,|$)/.test(rest),
      method: dovecotMethod(mechanism),
    }
  },
}

const COURIER_LOGIN =
  /^LOGIN, user=([^\s,]{1,255}), ip=\[([0-9A-Fa-f:.]{2,45})\](?:, port=\[\d{1,5}\])?(?:, protocol=(\w{1,20}))?(, (?:stls|starttls)=1)?$/

/** Courier pop3d and imapd. Their lines have no PID (spec/syslog.md §7). */
export const courier: Dialect = {
  name: 'courier',
  setting: 'check_daemon_courier',
  tags: [
    'pop3d',
    'pop3d-ssl',
    'imapd',
    'imapd-ssl',
    'pop3login',
    'imaplogin',
    'courierpop3login',
    'courierimaplogin',
    'couriertcpd',
  ],
  doc: 'Courier pop3d and imapd',
  longestLogin: 255,
  read(message, tag) {
    const parts = readParts(COURIER_LOGIN, message)
    if (parts === undefined) return undefined
    const [, login, address, protocol, starttls] = parts
    return {
      kind: 'login',
      address,
      login,
      imap: tag.includes('imap') || /^imap/i.test(protocol),
      tls: starttls !== '' || tag.endsWith('-ssl'),
    }
  },
}

const CYRUS_LOGIN =
  /^login: (?:[A-Za-z0-9._-]{1,255} ?)?\[([0-9A-Fa-f:.]{2,45})\] (\S{1,255}) ([A-Za-z0-9_-]{2,20})(\+TLS)? User logged in(?: SESSIONID=<[^<>\s]{0,255}>)?$/

/** One `key=value` of logfmt. The value is bare, or in quotes with `\"` `\\` `\n` `\x{HH}`. */
const CYRUS_LOGFMT_PAIR =
  /([A-Za-z][\w.]{0,63})=(?:"((?:[^"\\]|\\(?:["\\nrt]|x\{[0-9A-Fa-f]{2,6}\})){0,1024})"|([^\s"\\=]{0,1024}))( |$)/y
const CYRUS_CLIENT_HOST = /^(?:(?:[A-Za-z0-9._-]{1,255} ?)?\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Fa-f:.]{2,45}))$/

/**
 * Cyrus: `login: …` up to 3.8, `event=login.good …` from 3.13 on (spec/syslog.md §7). Anonymous
 * logins are not accepted, because they prove nothing.
 */
export const cyrus: Dialect = {
  name: 'cyrus',
  setting: 'check_daemon_cyrus',
  tags: ['cyrus/pop3', 'cyrus/pop3s', 'cyrus/imap', 'cyrus/imaps', 'pop3d', 'imapd', 'pop3', 'pop3s', 'imap', 'imaps'],
  doc: 'Cyrus pop3d and imapd',
  longestLogin: 255,
  read(message, tag) {
    const imap = tag.includes('imap')
    if (message.startsWith('event=login.good ')) return readCyrusLogfmt(message, imap)
    const parts = readParts(CYRUS_LOGIN, message)
    if (parts === undefined) return undefined
    const [, address, login, mechanism, tls] = parts
    if (isAnonymous(login) || isAnonymous(mechanism)) return undefined
    return { kind: 'login', address, login, imap, tls: tls !== '' }
  },
}

function readCyrusLogfmt(message: string, imap: boolean): DialectFields | undefined {
  const pairs = parseLogfmt(message)
  if (pairs === undefined) return undefined
  const host = readParts(CYRUS_CLIENT_HOST, pairs.get('r.clienthost') ?? '')
  const login = pairs.get('u.username') ?? ''
  // Escapes are not decoded, and a login with one could not be compared with the blocked logins.
  if (host === undefined || login === '' || /[\s\\]/.test(login)) return undefined
  const anonymous = pairs.has('login.anonymous') && pairs.get('login.anonymous') !== '0'
  if (anonymous || isAnonymous(login) || isAnonymous(pairs.get('login.mech') ?? '')) return undefined
  const [, inBrackets, bare] = host
  return { kind: 'login', address: inBrackets + bare, login, imap, tls: pairs.get('login.tls') === '1' }
}

/**
 * The pairs of a whole message, with escapes as they are written. Undefined if a part of the
 * message has another form, or if a key comes twice.
 */
function parseLogfmt(message: string): ReadonlyMap<string, string> | undefined {
  const pairs = new Map<string, string>()
  CYRUS_LOGFMT_PAIR.lastIndex = 0
  for (let end = 0; end < message.length; end = CYRUS_LOGFMT_PAIR.lastIndex) {
    const parts = readParts(CYRUS_LOGFMT_PAIR, message)
    if (parts === undefined) return undefined
    const [, key, quoted, bare, space] = parts
    if (pairs.has(key)) return undefined
    pairs.set(key, quoted + bare)
    if (space === ' ' && CYRUS_LOGFMT_PAIR.lastIndex === message.length) return undefined
  }
  return pairs
}

const isAnonymous = (text: string): boolean => text.toLowerCase() === 'anonymous'

// The success word stands at the end, behind text of the client. A line that syslog has cut could
// end inside that text, directly after a forged status="ok". So a line must be shorter than the 800
// octets at which a syslogd cuts, and no key may come twice.
const PERDITION_MAX_MESSAGE = 600
// On a socket for both families perdition writes IPv4 addresses as `::ffff:192.0.2.7:39757`. Other
// IPv6 addresses must have brackets, because otherwise the place of the port is ambiguous.
const PERDITION_IPV4 = '(?:::ffff:(?=[0-9.]{7,15}:))?([0-9.]{7,15})'
const PERDITION_ENDPOINT = String.raw`(?:${PERDITION_IPV4}|\[([0-9A-Fa-f:.]{2,45})\])(?::\d{1,5})?`
const PERDITION_LOGIN = new RegExp(
  String.raw`^Auth: ${PERDITION_ENDPOINT}->(?:(?:::ffff:)?[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?((?: [a-z_-]{1,40}=(?:"[^"\\]{0,128}"|[^\s"=]{1,128})){0,12}) status="ok"$`,
)
const PERDITION_PAIR = / ([a-z_-]{1,40})=(?:"([^"\\]{0,128})"|([^\s"=]{1,128}))/g

/** The perdition proxy (spec/syslog.md §7). */
export const perdition: Dialect = {
  name: 'perdition',
  setting: 'check_daemon_perdition',
  tags: [
    'perdition',
    'perdition.pop3',
    'perdition.pop3s',
    'perdition.imap',
    'perdition.imaps',
    'perdition.imap4',
    'perdition.imap4s',
  ],
  doc: 'the perdition proxy',
  longestLogin: 128,
  read(message, tag) {
    if (message.length > PERDITION_MAX_MESSAGE) return undefined
    const parts = readParts(PERDITION_LOGIN, message)
    if (parts === undefined) return undefined
    const [, ipv4, ipv6, fields] = parts
    const pairs = new Map<string, string>()
    for (const match of fields.matchAll(PERDITION_PAIR)) {
      const [, key, quoted, bare] = partsOf(match)
      if (pairs.has(key) || key === 'status') return undefined
      pairs.set(key, quoted + bare)
    }
    const login = pairs.get('authentication_id') ?? pairs.get('user') ?? ''
    if (login === '' || /\s/.test(login)) return undefined
    return {
      kind: 'login',
      address: ipv4 + ipv6,
      login,
      imap: tag.includes('imap') || /^imap/i.test(pairs.get('protocol') ?? ''),
      tls: /^(?:ssl|tls)/.test(pairs.get('client-secure') ?? ''),
    }
  },
}
