/** Makes the checker that the settings name, and decides whether new settings need another one. */
import { hash } from 'node:crypto'
import { availableParallelism } from 'node:os'
import { systemClock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { readSecretFile } from '../../settings/secret.ts'
import type { Settings } from '../../settings/settings.ts'
import type { Environment } from '../../ucspi/environment.ts'
import { CheckQueue } from './check-queue.ts'
import type { Checker } from './checker.ts'
import type { AuthenticationCache } from './password-hash.ts'

/**
 * Maximum number of waiting checks; above it a login gets a temporary failure. At 20 ms for each
 * hash on two cores the last one waits 10 s.
 */
const MOST_WAITING = 1000
/** Threads that hash at a time: one of the runtime's four stays free for files and host names. */
const MOST_HASHING = 3

/** Limits the number of programs that check passwords at the same time. */
export const programQueue = ({ popup }: Settings): CheckQueue =>
  new CheckQueue({ atOnce: popup.checker_processes, mostWaiting: MOST_WAITING })

/**
 * The checker that the settings name; only its own code is loaded.
 * @throws UsageFault if its settings or files are wrong.
 */
export async function makeChecker(
  name: 'passwd-file' | 'checkpassword' | 'sql' | 'system',
  settings: Settings,
  environment: Environment,
  log: Log,
): Promise<Checker> {
  const { popup } = settings
  const hashing = new CheckQueue({
    atOnce: Math.min(availableParallelism(), MOST_HASHING),
    mostWaiting: MOST_WAITING,
  })
  switch (name) {
    case 'passwd-file': {
      const { passwdFileChecker } = await import('./passwd-file.ts')
      return passwdFileChecker(
        { passwdFile: popup.passwd_file, apopFile: popup.apop_file, maildir: popup.maildir },
        await authenticationCache(popup),
        hashing,
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
        programs: programQueue(settings),
      })
    }
    case 'sql': {
      const { sqlChecker } = await import('./sql.ts')
      return sqlChecker(popup, await authenticationCache(popup), hashing, log)
    }
    case 'system': {
      const { systemChecker } = await import('./system.ts')
      return systemChecker({ maildir: popup.maildir }, await authenticationCache(popup), hashing)
    }
  }
}

async function authenticationCache(popup: Settings['popup']): Promise<AuthenticationCache> {
  const { AuthenticationCache } = await import('./password-hash.ts')
  return new AuthenticationCache(popup.auth_cache_time * 1000, systemClock)
}

/**
 * A fingerprint of all that makes a checker, its secret file included. While it stays the same, a
 * reload keeps the checker with its connections and its authentication cache. @throws UsageFault if
 * the secret file cannot be used.
 */
export function checkerFingerprint({ popup }: Settings): string {
  const secret =
    popup.checker === 'sql' && popup.sql_dbpass_file !== '' ? readSecretFile(popup.sql_dbpass_file).reveal() : ''
  const own = Object.entries(popup).filter(([name]) => name.startsWith('sql_') || OWN.has(name))
  return hash('sha256', JSON.stringify([own, secret]))
}

const OWN: ReadonlySet<string> = new Set([
  'checker',
  'checkpassword',
  'chain',
  'passwd_file',
  'apop_file',
  'maildir',
  'auth_cache_time',
  'check_timeout',
  'checker_processes',
])
