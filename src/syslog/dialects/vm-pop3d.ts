import type { Dialect } from '../dialect.ts'

const TAGS = ['vm-pop3d']
const USER = String.raw`(?:'([^\s']{1,255})'(?: of '([^\s']{1,255})')?|([^\s']{1,255}))`
const LOGIN = new RegExp(`^User ${USER} logged in from ([0-9A-Fa-f:.]{2,45})$`)
const SESSION = /^Connect from (.{0,255})$/
const SUCCESS = new RegExp(`^User ${USER} logged in$`)
const FAILURE = /^User .* - .*auth/

/** vm-pop3d, the variant that logs one line (spec/syslog.md §7). */
export const vmPop3d: Dialect = {
  name: 'vm-pop3d',
  setting: 'check_daemon_vm_pop3d',
  tags: TAGS,
  doc: 'vm-pop3d, the variant that logs login and address in one line',
  longestLogin: 255,
  read(message) {
    const [match, quoted, domain, bare, address = ''] = LOGIN.exec(message) ?? []
    return match === undefined ? undefined : { kind: 'login', address, login: fullName(quoted ?? bare, domain) }
  },
}

/** vm-pop3d-cc: address and login in two lines, joined by PID. */
export const vmPop3dTwoLines: Dialect = {
  name: 'vm-pop3d-two-lines',
  setting: 'check_daemon_vm_pop3d_two_lines',
  tags: TAGS,
  doc: 'older vm-pop3d; joins two lines by PID, the weakest form',
  longestLogin: 255,
  read(message) {
    const [session, address = ''] = SESSION.exec(message) ?? []
    if (session !== undefined) return { kind: 'session', address }
    const [success, quoted, domain, bare] = SUCCESS.exec(message) ?? []
    if (success !== undefined) return { kind: 'success', login: fullName(quoted ?? bare, domain) }
    return FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}

const fullName = (name = '', domain?: string): string => (domain === undefined ? name : `${name}@${domain}`)
