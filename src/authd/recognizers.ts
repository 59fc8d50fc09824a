import { UsageFault } from '../base/exit-status.ts'
import { hasAccount, idsOf } from '../process/privileges.ts'
import { AUTHD } from '../settings/authd.ts'
import type { Settings } from '../settings/settings.ts'
import { LoginRecognizer } from '../syslog/login-recognizer.ts'
import { recognizerOptions } from '../syslog/recognizer-options.ts'
import type { Recognizers } from './login-sources.ts'

/**
 * What the settings say of lines: which daemons, tags, hosts and senders are believed. @throws
 * UsageFault for unknown ones.
 */
export function recognizersFor({ authd, grants }: Settings): Recognizers {
  const { options, faults } = recognizerOptions({ authd, grants })
  if (faults.length > 0) throw new UsageFault(faults)
  return {
    syslog: new LoginRecognizer(options),
    files: new LoginRecognizer({ ...options, ownFiles: true }),
    strangers: new LoginRecognizer(options),
    senders: {
      uids: authd.journal ? journalUids(authd.journal_users) : new Set([0]),
      units: new Set(authd.journal_units),
    },
  }
}

/** Root and the listed accounts. An account of the default that this host does not have is left out. */
function journalUids(accounts: readonly string[]): ReadonlySet<number> {
  const usual: unknown = AUTHD.rows.journal_users.default
  const isUsual = (account: string): boolean => Array.isArray(usual) && usual.includes(account)
  const known = accounts.filter(account => !isUsual(account) || hasAccount(account))
  return new Set([0, ...known.map(account => idsOf(account, 'authd.journal_users').uid)])
}
