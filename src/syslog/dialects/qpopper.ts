import type { Dialect } from '../dialect.ts'

// Failure lines begin with the name that the client gave. None of them can end like these, and none
// that syslog cuts (at
// 800 octets or more) can be as short as the bounds of these fields demand.
const LOGIN =
  /^\(v[\w.]{1,40}\) POP login by user "([^"\s]{1,64})" at \(([^()\s]{0,255})\) ([0-9A-Fa-f:.]{2,45})(?: \[\w{1,40}\.c:\d{1,6}\])?$/
/** Versions before 4 name the address only in the figures at the end of a session. */
const STATS = /^Stats: (\S{1,64}) \d{1,10} \d{1,10} \d{1,10} \d{1,10} (?:[A-Za-z0-9._-]{1,255} )?([0-9A-Fa-f:.]{2,45})$/

/** qpopper (spec/syslog.md §7). */
export const qpopper: Dialect = {
  name: 'qpopper',
  setting: 'check_daemon_qpopper',
  tags: ['popper', 'qpopper', 'in.qpopper', 'in.popper'],
  doc: 'qpopper',
  longestLogin: 64,
  read(message) {
    const [match, login = '', , address = ''] = LOGIN.exec(message) ?? []
    if (match !== undefined) return { kind: 'login', address, login }
    const [stats, statsLogin = '', statsAddress = ''] = STATS.exec(message) ?? []
    return stats === undefined ? undefined : { kind: 'login', address: statsAddress, login: statsLogin }
  },
}
