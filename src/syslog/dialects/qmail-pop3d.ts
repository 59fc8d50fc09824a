import type { Dialect } from '../dialect.ts'
import { parseLoginLine } from '../login-line.ts'

/** Our own login line, also that of the patched qmail-pop3d of old (spec/syslog.md §6). */
export const qmailPop3d: Dialect = {
  name: 'qmail-pop3d',
  setting: 'check_daemon_hacked_qmailpop3d',
  tags: ['qmail-pop3d'],
  doc: "this package's own popup and pop3d, through syslog",
  longestLogin: 255,
  read(message) {
    const line = parseLoginLine(message)
    if (line === undefined) return undefined
    const { address, user: login, cut, tls, method } = line
    return { kind: 'login', address, login, cut, tls, method }
  },
}
