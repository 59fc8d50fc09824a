import type { Dialect } from '../dialect.ts'
import { parseOwnFileLine } from '../syslog-line.ts'

// `Login` up to 2.3, `Logged in` from 2.4. Only the default order of login_log_format_elements; no `<`, `>`, `,` or space in
// the name, since Dovecot escapes none of them. What follows lip= is never parsed for an address.
const LOGIN =
  /^(pop3|imap)-login: (?:Login|Logged in): user=<([^<>,\s]{1,80})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}(|, .*\S)$/

/** Of a name above 80 octets Dovecot writes 74 to 77 (no character is cut in two) and three dots. */
const CUT_NAME = /\.\.\.$/
const SHORTEST_CUT = 77

/** Dovecot, all versions to 2.4, through syslog, its own log file or standard output (spec/syslog.md §7). */
export const dovecot: Dialect = {
  name: 'dovecot',
  setting: 'check_daemon_dovecot',
  tags: ['dovecot'],
  doc: 'Dovecot to 2.4',
  longestLogin: 255,
  read(message) {
    // Written to standard output, e.g. in a container, the message begins with Dovecot's own stamp and level.
    const text = parseOwnFileLine(message)?.message ?? message
    const [match, service, login = '', mechanism, address = '', rest = ''] = LOGIN.exec(text) ?? []
    if (match === undefined) return undefined
    return {
      kind: 'login',
      address,
      login,
      cut: CUT_NAME.test(login) && Buffer.byteLength(login) >= SHORTEST_CUT,
      imap: service === 'imap',
      tls: /, TLS(?:,|$)/.test(rest),
      method: mechanism === 'APOP' ? 'apop' : mechanism === 'PLAIN' ? 'pass' : 'sasl',
    }
  },
}
