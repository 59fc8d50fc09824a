/** The list of all dialects. */
import type { Dialect } from './dialect.ts'
import { courier, cyrus, dovecot, dovecotProxy, ipop3d, perdition } from './dialects/imap-servers.ts'
import { cucipop, gnuPop3d, qpopper, teapop, tpop3d } from './dialects/pop3-servers.ts'
import { qmailPop3d, vchkpw } from './dialects/qmail.ts'
import { popa3d, solidPop3d, solidPop3dTwoLines, vmPop3d, vmPop3dTwoLines } from './dialects/two-line-servers.ts'

/** Every dialect, in the order of spec/syslog.md. */
export const DIALECTS: readonly Dialect[] = [
  ipop3d,
  vchkpw,
  qmailPop3d,
  dovecot,
  dovecotProxy,
  courier,
  cyrus,
  qpopper,
  solidPop3d,
  solidPop3dTwoLines,
  teapop,
  tpop3d,
  gnuPop3d,
  vmPop3d,
  vmPop3dTwoLines,
  perdition,
  cucipop,
  popa3d,
]

/**
 * The dialect of that name (`solid-pop3d`) or setting (`check_daemon_solid`); undefined if there is
 * none.
 */
export const dialectNamed = (name: string): Dialect | undefined =>
  DIALECTS.find(dialect => dialect.name === name || dialect.setting === name)
