import type { Dialect } from '../dialect.ts'

const LOGIN =
  /^LOGIN, user=([^\s,]{1,255}), ip=\[([0-9A-Fa-f:.]{2,45})\](?:, port=\[\d{1,5}\])?(?:, protocol=(\w{1,20}))?(, (?:stls|starttls)=1)?$/

/** Courier pop3d and imapd; they log without PID (spec/syslog.md §7). */
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
    const [match, login = '', address = '', protocol = '', starttls] = LOGIN.exec(message) ?? []
    if (match === undefined) return undefined
    return {
      kind: 'login',
      address,
      login,
      imap: tag.includes('imap') || /^imap/i.test(protocol),
      tls: starttls !== undefined || tag.endsWith('-ssl'),
    }
  },
}
