import type { Dialect } from './dialect.ts'
import { courier } from './dialects/courier.ts'
import { cucipop } from './dialects/cucipop.ts'
import { cyrus } from './dialects/cyrus.ts'
import { dovecot, dovecotProxy } from './dialects/dovecot.ts'
import { gnuPop3d } from './dialects/gnu-pop3d.ts'
import { ipop3d } from './dialects/ipop3d.ts'
import { perdition } from './dialects/perdition.ts'
import { popa3d } from './dialects/popa3d.ts'
import { qmailPop3d } from './dialects/qmail-pop3d.ts'
import { qpopper } from './dialects/qpopper.ts'
import { solidPop3d, solidPop3dTwoLines } from './dialects/solid-pop3d.ts'
import { teapop } from './dialects/teapop.ts'
import { tpop3d } from './dialects/tpop3d.ts'
import { vchkpw } from './dialects/vchkpw.ts'
import { vmPop3d, vmPop3dTwoLines } from './dialects/vm-pop3d.ts'

/** Every dialect that is known, in the order of spec/syslog.md. Each is switched on by its own setting. */
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

/** The dialect of that name (`solid-pop3d`) or setting (`check_daemon_solid`); undefined if there is none. */
export const dialectNamed = (name: string): Dialect | undefined =>
  DIALECTS.find(dialect => dialect.name === name || dialect.setting === name)
