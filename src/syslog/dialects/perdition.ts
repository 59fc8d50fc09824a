import type { Dialect } from '../dialect.ts'

// The success word stands at the end, behind text of the client. A line cut by syslog could end inside that text, right
// after a forged status="ok": so no line comes near the 800 octets at which anybody cuts, and no key may come twice.
const MAX_MESSAGE = 600
// On a socket for both families perdition writes IPv4 addresses as `::ffff:192.0.2.7:39757`. Of
// addresses without brackets
// only this form is taken: where the port of another IPv6 address begins cannot be told.
const IPV4 = '(?:::ffff:(?=[0-9.]{7,15}:))?([0-9.]{7,15})'
const ENDPOINT = String.raw`(?:${IPV4}|\[([0-9A-Fa-f:.]{2,45})\])(?::\d{1,5})?`
const LOGIN = new RegExp(
  String.raw`^Auth: ${ENDPOINT}->(?:(?:::ffff:)?[0-9.]{7,15}|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?((?: [a-z_-]{1,40}=(?:"[^"\\]{0,128}"|[^\s"=]{1,128})){0,12}) status="ok"$`,
)
const PAIR = / ([a-z_-]{1,40})=(?:"([^"\\]{0,128})"|([^\s"=]{1,128}))/g

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
    if (message.length > MAX_MESSAGE) return undefined
    const [match, ipv4, ipv6, fields = ''] = LOGIN.exec(message) ?? []
    if (match === undefined) return undefined
    const pairs = new Map<string, string>()
    for (const [, key = '', quoted, bare] of fields.matchAll(PAIR)) {
      if (pairs.has(key) || key === 'status') return undefined
      pairs.set(key, quoted ?? bare ?? '')
    }
    const login = pairs.get('authentication_id') ?? pairs.get('user')
    if (login === undefined || login === '' || /\s/.test(login)) return undefined
    return {
      kind: 'login',
      address: ipv4 ?? ipv6 ?? '',
      login,
      imap: tag.includes('imap') || /^imap/i.test(pairs.get('protocol') ?? ''),
      tls: /^(?:ssl|tls)/.test(pairs.get('client-secure') ?? ''),
    }
  },
}
