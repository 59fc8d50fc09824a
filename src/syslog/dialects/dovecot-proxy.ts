import type { Dialect } from '../dialect.ts'
import { parseOwnFileLine } from '../syslog-line.ts'

// The login stands before the words of success too. So it holds no space, bracket or comma, what follows `lip=` is a closed list,
// and a message is shorter than any at which a syslogd cuts: no text in a failure line can end the line behind a forged success.
const MAX_MESSAGE = 600
const NAME = String.raw`[^<>(),\s]{1,128}`
const LOGIN = new RegExp(
  String.raw`^(pop3|imap)-login: proxy\((${NAME}?)(?:,[\w.:[\]-]{1,80})?\): ` +
    String.raw`[Ss]tarted proxying to (?:<[\w.:[\]-]{1,80}> \(\d{1,6}\.\d{3} secs\)|[\w.:[\]-]{1,80}(?:/${NAME})?): ` +
    String.raw`user=<(${NAME})>, method=([\w-]{1,40}), rip=([0-9A-Fa-f:.]{2,45}), lip=[0-9A-Fa-f:.]{2,45}` +
    String.raw`((?:, (?:mpid=\d{1,10}|secured|TLS|session=<[\w+/=]{1,64}>)){0,4})$`,
)

/**
 * A Dovecot that hands its clients to other servers: the server behind has accepted the login when the proxy writes this line.
 * The servers behind log the address of the proxy, unless they trust it (`login_trusted_networks`).
 */
export const dovecotProxy: Dialect = {
  name: 'dovecot-proxy',
  setting: 'check_daemon_dovecot_proxy',
  tags: ['dovecot'],
  doc: 'Dovecot as a proxy or director',
  longestLogin: 77,
  read(message) {
    if (message.length > MAX_MESSAGE) return undefined
    const text = parseOwnFileLine(message)?.message ?? message
    const [match, service, name, login = '', mechanism, address = '', rest = ''] = LOGIN.exec(text) ?? []
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
