import type { Dialect } from '../dialect.ts'

// The first bracket is the server's own address. The client's is the last.
const LOGIN = /^Successful login for (\S{1,255}) \[[0-9A-Fa-f:.]{2,45}\] from (\S{1,255}) \[([0-9A-Fa-f:.]{2,45})\]$/

/** teapop; it logs to facility local0 (spec/syslog.md §7). */
export const teapop: Dialect = {
  name: 'teapop',
  setting: 'check_daemon_teapop',
  tags: ['teapop'],
  doc: 'teapop (facility local0)',
  longestLogin: 255,
  read(message) {
    const [match, login = '', , address = ''] = LOGIN.exec(message) ?? []
    return match === undefined ? undefined : { kind: 'login', address, login }
  },
}
