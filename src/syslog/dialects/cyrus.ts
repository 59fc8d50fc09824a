import type { Dialect, Heard } from '../dialect.ts'

const LOGIN =
  /^login: (?:[A-Za-z0-9._-]{1,255} ?)?\[([0-9A-Fa-f:.]{2,45})\] (\S{1,255}) ([A-Za-z0-9_-]{2,20})(\+TLS)? User logged in(?: SESSIONID=<[^<>\s]{0,255}>)?$/

/** One `key=value` of logfmt at the given place; the value bare, or quoted with `\"` `\\` `\n` `\x{HH}`. */
const LOGFMT_PAIR =
  /([A-Za-z][\w.]{0,63})=(?:"((?:[^"\\]|\\(?:["\\nrt]|x\{[0-9A-Fa-f]{2,6}\})){0,1024})"|([^\s"\\=]{0,1024}))( |$)/y
const CLIENT_HOST = /^(?:(?:[A-Za-z0-9._-]{1,255} ?)?\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Fa-f:.]{2,45}))$/

/**
 * Cyrus: `login: …` to 3.8, `event=login.good …` from the 3.13 line on (spec/syslog.md §7).
 * Anonymous logins prove nothing.
 */
export const cyrus: Dialect = {
  name: 'cyrus',
  setting: 'check_daemon_cyrus',
  tags: ['cyrus/pop3', 'cyrus/pop3s', 'cyrus/imap', 'cyrus/imaps', 'pop3d', 'imapd', 'pop3', 'pop3s', 'imap', 'imaps'],
  doc: 'Cyrus pop3d and imapd',
  longestLogin: 255,
  read(message, tag) {
    const imap = tag.includes('imap')
    if (message.startsWith('event=login.good ')) return readLogfmt(message, imap)
    const [match, address = '', login = '', mechanism = '', tls] = LOGIN.exec(message) ?? []
    if (match === undefined || isAnonymous(login) || isAnonymous(mechanism)) return undefined
    return { kind: 'login', address, login, imap, tls: tls !== undefined }
  },
}

function readLogfmt(message: string, imap: boolean): Heard | undefined {
  const pairs = parseLogfmt(message)
  const [, inBrackets, bare] = CLIENT_HOST.exec(pairs?.get('r.clienthost') ?? '') ?? []
  const address = inBrackets ?? bare
  const login = pairs?.get('u.username')
  if (pairs === undefined || address === undefined || login === undefined || login === '') return undefined
  const anonymous = pairs.has('login.anonymous') && pairs.get('login.anonymous') !== '0'
  if (anonymous || isAnonymous(login) || isAnonymous(pairs.get('login.mech') ?? '')) return undefined
  if (pairs.get('event') !== 'login.good' || /\s/.test(login)) return undefined
  return { kind: 'login', address, login, imap, tls: pairs.get('login.tls') === '1' }
}

/** The whole message as pairs; undefined if any part of it has another shape or a key comes twice. */
function parseLogfmt(message: string): ReadonlyMap<string, string> | undefined {
  const pairs = new Map<string, string>()
  LOGFMT_PAIR.lastIndex = 0
  for (let end = 0; end < message.length; end = LOGFMT_PAIR.lastIndex) {
    const [match, key = '', quoted, bare = '', space] = LOGFMT_PAIR.exec(message) ?? []
    if (match === undefined || pairs.has(key)) return undefined
    // A value with an escape in it is not needed by anyone: keep it as it stands.
    pairs.set(key, quoted ?? bare)
    if (space === ' ' && LOGFMT_PAIR.lastIndex === message.length) return undefined
  }
  return pairs
}

const isAnonymous = (text: string): boolean => text.toLowerCase() === 'anonymous'
