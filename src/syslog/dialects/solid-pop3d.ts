import type { Dialect } from '../dialect.ts'

const TAGS = ['solid-pop3d', 'spop3d']
const LOGIN =
  /^(?:mapped )?user (\S{1,40}) authenticated( through APOP)? - (?:[A-Za-z0-9.-]{1,255} \(([0-9A-Fa-f:.]{2,45})\)|([0-9A-Fa-f:.]{2,45}))$/
const SESSION = /^connect from (?:[A-Za-z0-9.-]{1,255} \(([0-9A-Fa-f:.]{2,45})\)|(.{0,300}))$/
const SUCCESS = /^(?:mapped )?user (\S{1,40}) authenticated( through APOP)?$/
const FAILURE = /^(?:authentication failed|session ended)/

/** solid-pop3d built with log-extend: one line with the address (spec/syslog.md §7). */
export const solidPop3d: Dialect = {
  name: 'solid-pop3d',
  setting: 'check_daemon_solid',
  tags: TAGS,
  doc: 'solid-pop3d built with log-extend',
  longestLogin: 40,
  read(message) {
    const [match, login = '', apop, named, bare] = LOGIN.exec(message) ?? []
    if (match === undefined) return undefined
    return { kind: 'login', address: named ?? bare ?? '', login, method: apop === undefined ? 'pass' : 'apop' }
  },
}

/** solid-pop3d without log-extend: address and login in two lines, joined by PID. */
export const solidPop3dTwoLines: Dialect = {
  name: 'solid-pop3d-two-lines',
  setting: 'check_daemon_solid_two_lines',
  tags: TAGS,
  doc: 'solid-pop3d without log-extend; joins two lines by PID, the weakest form',
  longestLogin: 40,
  read(message) {
    const [session, named, bare] = SESSION.exec(message) ?? []
    if (session !== undefined) return { kind: 'session', address: named ?? bare ?? '' }
    const [success, login = '', apop] = SUCCESS.exec(message) ?? []
    if (success !== undefined) return { kind: 'success', login, method: apop === undefined ? 'pass' : 'apop' }
    return FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}
