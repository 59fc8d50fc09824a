import { systemClock } from '../../daemon/clock.ts'
import type { Log } from '../../daemon/log.ts'
import type { Settings } from '../../daemon/settings/settings.ts'
import type { Environment } from '../../ucspi/environment.ts'
import type { Checker } from './checker.ts'
import type { RememberedPasswords } from './remembered-passwords.ts'

/**
 * The checker that the settings name; only its own code is loaded.
 * @throws UsageFault if its settings or files are wrong.
 */
export async function makeChecker(
  name: 'passwd-file' | 'checkpassword' | 'sql' | 'system',
  { popup }: Settings,
  environment: Environment,
  log: Log,
): Promise<Checker> {
  switch (name) {
    case 'passwd-file': {
      const { passwdFileChecker } = await import('./passwd-file.ts')
      return passwdFileChecker(
        { passwdFile: popup.passwd_file, apopFile: popup.apop_file, maildir: popup.maildir },
        await remembered(popup),
        log,
      )
    }
    case 'checkpassword': {
      const { checkpasswordChecker } = await import('./checkpassword.ts')
      return checkpasswordChecker({
        command: popup.checkpassword,
        maildir: popup.maildir,
        environment,
        limitMs: popup.check_timeout * 1000,
      })
    }
    case 'sql': {
      const { sqlChecker } = await import('./sql.ts')
      return sqlChecker(popup, await remembered(popup), log)
    }
    case 'system': {
      const { systemChecker } = await import('./system.ts')
      return systemChecker({ maildir: popup.maildir }, await remembered(popup))
    }
  }
}

async function remembered(popup: Settings['popup']): Promise<RememberedPasswords> {
  const { RememberedPasswords } = await import('./remembered-passwords.ts')
  return new RememberedPasswords(popup.remember_passwords * 1000, systemClock)
}
