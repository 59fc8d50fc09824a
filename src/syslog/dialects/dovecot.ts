import type { Dialect } from '../dialect.ts'

// `Login` up to 2.3, `Logged in` from 2.4. Only the default order of login_log_format_elements; no `<`, `>`, `,` or space in
// the name, since Dovecot escapes none of them. What follows lip= is never parsed for an address.
const LOGIN =
  /^(pop3|imap)-login: (?:Login|Logged in): user=<([^<>,\s]{1,80})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}(|, .*\S)$/

/** Dovecot, all versions to 2.4, through syslog or its own log file (spec/syslog.md §7). */
export const dovecot: Dialect = {
  name: 'dovecot',
  setting: 'check_daemon_dovecot',
  tags: ['dovecot'],
  doc: 'Dovecot to 2.4',
  read(message) {
    const [match, service, login = '', mechanism, address = '', rest = ''] = LOGIN.exec(message) ?? []
    if (match === undefined) return undefined
    return {
      kind: 'login',
      address,
      login,
      imap: service === 'imap',
      tls: /, TLS(?:,|$)/.test(rest),
      method: mechanism === 'APOP' ? 'apop' : mechanism === 'PLAIN' ? 'pass' : 'sasl',
    }
  },
}
