import type { Dialect } from '../dialect.ts'

// Written at the end of a session; no word in it says that a login succeeded, only its shape does.
// Other lines of the daemon
// ("lost NAME", "authentication failure NAME") end in what a client sent, which could complete the shape: what begins
// with such a word is none.
const SESSION =
  /^(?!(?:lost|auth|authentication|connect|connection|error|bad|invalid|timeout)\b)([^\s,:()]{1,64}) (\d[0-9.]{6,14}) \d{1,10}, \d{1,10} \(\d{1,10}\), \d{1,10} \(\d{1,10}\)$/

/** cucipop: IPv4, at the end of a session only. The weakest anchor of all (spec/syslog.md §7). */
export const cucipop: Dialect = {
  name: 'cucipop',
  setting: 'check_daemon_cucipop',
  tags: ['cucipop'],
  doc: 'cucipop; only the shape of its line says that somebody logged in: better left off',
  longestLogin: 64,
  read(message) {
    const [match, login = '', address = ''] = SESSION.exec(message) ?? []
    return match === undefined ? undefined : { kind: 'login', address, login }
  },
}
