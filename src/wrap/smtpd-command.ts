import { isAbsolute, join } from 'node:path'
import type { Settings } from '../settings/settings.ts'

/** The real smtpd: what the settings say, or qmail's under its second name. `args` follow it. */
export function smtpdCommand({ wrap }: Pick<Settings, 'wrap'>, args: readonly string[] = []): readonly string[] {
  if (wrap.smtpd.length > 0) return [...wrap.smtpd, ...args]
  const { qmaildir, qmail_smtpd_noauth } = wrap
  const file = isAbsolute(qmail_smtpd_noauth) ? qmail_smtpd_noauth : join(qmaildir, 'bin', qmail_smtpd_noauth)
  return [file, ...args]
}
