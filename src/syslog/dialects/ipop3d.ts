import type { LoginMethod } from '../../wire/login-event.ts'
import type { Dialect } from '../dialect.ts'

// The closing bracket is required: host names are cut at 80 octets, and a cut address could be another valid address.
const HOST = String.raw`(?:[A-Za-z0-9.-]{1,80} )?\[([0-9A-Fa-f:.]{2,45}(?:%[\w.-]{1,16})?)\]`
const POP3 = new RegExp(
  String.raw`^(Login|Auth|APOP) user=(\S{1,80}) host=${HOST}(?: nmsgs=\d{1,10}/\d{1,10}| no mailbox)$`,
)
const IMAP = new RegExp(String.raw`^(Login|Authenticated) user=(\S{1,80}) host=${HOST}(?: mech=[\w-]{1,40})?$`)

const METHODS: ReadonlyMap<string, LoginMethod> = new Map([
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
  // `%.80s`, without a mark.
  longestLogin: 80,
  read(message, tag) {
    const imap = tag.includes('imap')
    const [match, verb = '', login = '', address = ''] = (imap ? IMAP : POP3).exec(message) ?? []
    if (match === undefined) return undefined
    return { kind: 'login', address, login, imap, method: METHODS.get(verb) ?? 'pass' }
  },
}
