import type { Dialect } from '../dialect.ts'
import { parseOwnFileLine } from '../syslog-line.ts'

// `Login` up to 2.3, `Logged in` from 2.4. Only the default order of login_log_format_elements; no
// `<`, `>`, `,` or space in
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

// The login stands before the words of success too. So it holds no space, bracket or comma, what
// follows `lip=` is a closed list,
// and a message is shorter than any at which a syslogd cuts: no text in a failure line can end the
// line behind a forged success.
const MAX_PROXY_MESSAGE = 600
const NAME = String.raw`[^<>(),\s]{1,128}`
const PROXIED_LOGIN = new RegExp(
  String.raw`^(pop3|imap)-login: proxy\((${NAME}?)(?:,[\w.:[\]-]{1,80})?\): ` +
    String.raw`[Ss]tarted proxying to (?:<[\w.:[\]-]{1,80}> \(\d{1,6}\.\d{3} secs\)|[\w.:[\]-]{1,80}(?:/${NAME})?): ` +
    String.raw`user=<(${NAME})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}` +
    String.raw`((?:, (?:mpid=\d{1,10}|secured|TLS|session=<[\w+/=]{1,64}>)){0,4})$`,
)

/**
 * A Dovecot that hands its clients to other servers: the server behind has accepted the login when
 * the proxy writes this line.
 * The servers behind log the address of the proxy, unless they trust it (`login_trusted_networks`).
 */
export const dovecotProxy: Dialect = {
  name: 'dovecot-proxy',
  setting: 'check_daemon_dovecot_proxy',
  tags: ['dovecot'],
  doc: 'Dovecot as a proxy or director',
  longestLogin: 77,
  read(message) {
    if (message.length > MAX_PROXY_MESSAGE) return undefined
    const text = parseOwnFileLine(message)?.message ?? message
    const [match, service, name, login = '', mechanism, address = '', rest = ''] = PROXIED_LOGIN.exec(text) ?? []
    if (match === undefined || name !== login) return undefined
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
