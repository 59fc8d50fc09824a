import type { Dialect } from '../dialect.ts'

const LOGIN = /^User (\S{1,255}) logged in with mailbox (\S{1,255}) from ([0-9A-Fa-f:.]{2,45})$/

/** gnu-pop3d (spec/syslog.md §7). */
export const gnuPop3d: Dialect = {
  name: 'gnu-pop3d',
  setting: 'check_daemon_gnu_pop3d',
  tags: ['gnu-pop3d'],
  doc: 'gnu-pop3d',
  longestLogin: 255,
  read(message) {
    const [match, login = '', , address = ''] = LOGIN.exec(message) ?? []
    return match === undefined ? undefined : { kind: 'login', address, login: unquote(login) }
  },
}

const unquote = (name: string): string => (/^'[^']+'$/.test(name) ? name.slice(1, -1) : name)
