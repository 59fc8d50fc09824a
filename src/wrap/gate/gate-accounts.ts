import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import type { Settings } from '../../settings/settings.ts'

/** The accounts of a gate and of its smtpd. */
export type GateAccounts = {
  /** The account that the gate takes; undefined: it keeps the one it has. */
  readonly gate: Ids | undefined
  /** The account of the smtpd, if that is another: starters run under it. */
  readonly smtpd: Ids | undefined
  /** Why gate and smtpd share an account. */
  readonly notSeparated?: string
}

/**
 * Who is who, by the settings and by the account that started us. Throws UsageFault if the host
 * lacks one of the accounts.
 */
export function gateAccounts({ wrap }: Pick<Settings, 'wrap'>): GateAccounts {
  const { listen, smtpd_user } = wrap
  const runsSmtpd = listen.length > 0
  if (!isRoot()) {
    const gate = smtpd_user === '' ? undefined : idsOf(smtpd_user, 'wrap.smtpd_user')
    const notSeparated = 'wrap is not started as root: gate and smtpd are one user'
    return { gate, smtpd: undefined, ...(runsSmtpd ? { notSeparated } : {}) }
  }
  if (!runsSmtpd) return { gate: idsOf(wrap.user, 'wrap.user'), smtpd: undefined }
  if (smtpd_user === '')
    return { gate: undefined, smtpd: undefined, notSeparated: 'wrap.smtpd_user is empty: gate and smtpd are root' }
  const [gate, smtpd] = [idsOf(wrap.user, 'wrap.user'), idsOf(smtpd_user, 'wrap.smtpd_user')]
  if (gate.uid === smtpd.uid)
    return { gate, smtpd: undefined, notSeparated: 'wrap.user and wrap.smtpd_user are one account' }
  return { gate, smtpd }
}
