import type { Dialect } from '../dialect.ts'

const LOGIN =
  /^fork_child: \[\d{1,6}\](\d[0-9.]{6,14})(?:\/[A-Za-z0-9.-]{0,255})?: began session for `([^\s`']{1,255})' with [\w.-]{1,40}; child PID is \d{1,10}$/

/** tpop3d, IPv4 only (spec/syslog.md §7). */
export const tpop3d: Dialect = {
  name: 'tpop3d',
  setting: 'check_daemon_tpop3d',
  tags: ['tpop3d'],
  doc: 'tpop3d',
  longestLogin: 255,
  read(message) {
    const [match, address = '', login = ''] = LOGIN.exec(message) ?? []
    return match === undefined ? undefined : { kind: 'login', address, login }
  },
}
