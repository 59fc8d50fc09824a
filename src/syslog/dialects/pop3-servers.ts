/** Dialects of servers for POP3 only that log a login in one line. */

import type { Dialect } from '../dialect.ts'
import { readParts } from '../syslog-line.ts'

// Failure lines begin with the name that the client gave. No failure line can end like these lines.
// A line that syslog has cut has 800 octets or more, and the bounds of these fields permit less.
const QPOPPER_LOGIN =
  /^\(v[\w.]{1,40}\) POP login by user "([^"\s]{1,64})" at \(([^()\s]{0,255})\) ([0-9A-Fa-f:.]{2,45})(?: \[\w{1,40}\.c:\d{1,6}\])?$/
/** Versions before 4 write the address only into the statistics at the end of a session. */
const QPOPPER_STATS =
  /^Stats: (\S{1,64}) \d{1,10} \d{1,10} \d{1,10} \d{1,10} (?:[A-Za-z0-9._-]{1,255} )?([0-9A-Fa-f:.]{2,45})$/

/** qpopper (spec/syslog.md §7). */
export const qpopper: Dialect = {
  name: 'qpopper',
  setting: 'check_daemon_qpopper',
  tags: ['popper', 'qpopper', 'in.qpopper', 'in.popper'],
  doc: 'qpopper',
  longestLogin: 64,
  read(message) {
    const parts = readParts(QPOPPER_LOGIN, message)
    if (parts !== undefined) {
      const [, login, , address] = parts
      return { kind: 'login', address, login }
    }
    const stats = readParts(QPOPPER_STATS, message)
    if (stats === undefined) return undefined
    const [, login, address] = stats
    return { kind: 'login', address, login }
  },
}

// The first bracket has the server's own address, the last one the client's.
const TEAPOP_LOGIN =
  /^Successful login for (\S{1,255}) \[[0-9A-Fa-f:.]{2,45}\] from (\S{1,255}) \[([0-9A-Fa-f:.]{2,45})\]$/

/** teapop, which logs to facility local0 (spec/syslog.md §7). */
export const teapop: Dialect = {
  name: 'teapop',
  setting: 'check_daemon_teapop',
  tags: ['teapop'],
  doc: 'teapop (facility local0)',
  longestLogin: 255,
  read(message) {
    const parts = readParts(TEAPOP_LOGIN, message)
    if (parts === undefined) return undefined
    const [, login, , address] = parts
    return { kind: 'login', address, login }
  },
}

const TPOP3D_LOGIN =
  /^fork_child: \[\d{1,6}\](\d[0-9.]{6,14})(?:\/[A-Za-z0-9.-]{0,255})?: began session for `([^\s`']{1,255})' with [\w.-]{1,40}; child PID is \d{1,10}$/

/** tpop3d, IPv4 only (spec/syslog.md §7). */
export const tpop3d: Dialect = {
  name: 'tpop3d',
  setting: 'check_daemon_tpop3d',
  tags: ['tpop3d'],
  doc: 'tpop3d',
  longestLogin: 255,
  read(message) {
    const parts = readParts(TPOP3D_LOGIN, message)
    if (parts === undefined) return undefined
    const [, address, login] = parts
    return { kind: 'login', address, login }
  },
}

const GNU_POP3D_LOGIN = /^User (\S{1,255}) logged in with mailbox (\S{1,255}) from ([0-9A-Fa-f:.]{2,45})$/

/** gnu-pop3d (spec/syslog.md §7). */
export const gnuPop3d: Dialect = {
  name: 'gnu-pop3d',
  setting: 'check_daemon_gnu_pop3d',
  tags: ['gnu-pop3d'],
  doc: 'gnu-pop3d',
  longestLogin: 255,
  read(message) {
    const parts = readParts(GNU_POP3D_LOGIN, message)
    if (parts === undefined) return undefined
    const [, login, , address] = parts
    return { kind: 'login', address, login: unquote(login) }
  },
}

const unquote = (name: string): string => (/^'[^']+'$/.test(name) ? name.slice(1, -1) : name)

// cucipop writes the line at the end of a session, and only the form of the line shows a login.
// Other lines of cucipop ("lost NAME", "authentication failure NAME") end with text of the client,
// which could complete the form. So a line that begins with such a word is not a login.
const CUCIPOP_SESSION =
  /^(?!(?:lost|auth|authentication|connect|connection|error|bad|invalid|timeout)\b)([^\s,:()]{1,64}) (\d[0-9.]{6,14}) \d{1,10}, \d{1,10} \(\d{1,10}\), \d{1,10} \(\d{1,10}\)$/

/**
 * cucipop, IPv4 only, at the end of a session (spec/syslog.md §7). The easiest dialect to forge.
 */
export const cucipop: Dialect = {
  name: 'cucipop',
  setting: 'check_daemon_cucipop',
  tags: ['cucipop'],
  doc: 'cucipop; only the form of its line shows a login: better left off',
  longestLogin: 64,
  read(message) {
    const parts = readParts(CUCIPOP_SESSION, message)
    if (parts === undefined) return undefined
    const [, login, address] = parts
    return { kind: 'login', address, login }
  },
}
