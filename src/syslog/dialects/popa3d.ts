import type { Dialect } from '../dialect.ts'

const LOGIN = /^Authentication passed for (\S{1,255}) -- \[([0-9A-Fa-f:.]{2,45})\]$/
const SESSION = /^Session from (.{0,255})$/
const SUCCESS = /^Authentication passed for (\S{1,255})$/
const FAILURE = /^(?:Authentication failed for |Didn't attempt authentication)/

/** popa3d: address and login in two lines, joined by PID; or one, with the patch that is about (spec/syslog.md §7). */
export const popa3d: Dialect = {
  name: 'popa3d',
  setting: 'check_daemon_popa3d',
  tags: ['popa3d'],
  doc: 'popa3d (facility daemon); joins two lines by PID, the weakest form',
  longestLogin: 255,
  read(message) {
    const [match, login = '', address = ''] = LOGIN.exec(message) ?? []
    if (match !== undefined) return { kind: 'login', address, login }
    const [session, from = ''] = SESSION.exec(message) ?? []
    if (session !== undefined) return { kind: 'session', address: from }
    const [success, name = ''] = SUCCESS.exec(message) ?? []
    if (success !== undefined) return { kind: 'success', login: name }
    return FAILURE.test(message) ? { kind: 'failure' } : undefined
  },
}
