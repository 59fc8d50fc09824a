import type { Log } from '../../base/log.ts'
import { loginText } from '../login-name.ts'
import type { AuthenticationCache } from './authentication-cache.ts'
import type { CheckQueue } from './check-queue.ts'
import { type Checker, no, temporary } from './checker.ts'
import { type PasswdEntry, parseApopSecrets, parsePasswd } from './passwd-line.ts'
import { verifyApop, verifyPassword } from './password-hash.ts'
import { WatchedFile } from './watched-file.ts'

/** Faulty lines that are logged one by one. */
const FAULTS_SHOWN = 20

type Accounts = { readonly entries: ReadonlyMap<string, PasswdEntry>; readonly decoy: string }

/**
 * Accounts of a file that needs no other program (`login:hash:uid:gid:home:maildir`), and APOP secrets of another one.
 * Both are read again when they change. An unknown login costs the same work as a known one.
 * @throws UsageFault if a file cannot be read, or is open to others.
 */
export function passwdFileChecker(
  options: { readonly passwdFile: string; readonly apopFile: string; readonly maildir: string },
  passwords: AuthenticationCache,
  hashing: CheckQueue,
  log: Log,
): Checker {
  const parse = (text: string): Accounts => {
    const { entries, faults } = parsePasswd(text, options.maildir)
    for (const { line, reason } of faults.slice(0, FAULTS_SHOWN)) {
      log.warn('passwd_line_ignored', { path: options.passwdFile, line, reason })
    }
    if (faults.length > FAULTS_SHOWN) log.warn('passwd_lines_ignored', { count: faults.length })
    return { entries, decoy: decoyOf(entries) }
  }
  const accounts = new WatchedFile(options.passwdFile, 0o007, parse, log)
  const secrets = options.apopFile === '' ? undefined : new WatchedFile(options.apopFile, 0o077, parseApopSecrets, log)
  return {
    check: async ({ login, secret, method, timestamp, applicant }) => {
      const inTurn = <T>(work: () => Promise<T>): Promise<T> => hashing.run(applicant, work)
      const name = loginText(login)
      const known = accounts.current()
      if (known === undefined) return temporary('passwd_file is not usable')
      const entry = known.entries.get(name)
      if (method === 'apop') {
        const apop = secrets?.current()
        if (secrets !== undefined && apop === undefined) return temporary('apop_file is not usable')
        const right = verifyApop(secret, timestamp, apop?.get(name) ?? ' ') && apop?.has(name) === true
        if (entry === undefined || !right) return no(apop === undefined ? 'no APOP secrets' : 'wrong login or digest')
      } else {
        if (entry === undefined) {
          await verifyPassword(secret, known.decoy, inTurn)
          return no('unknown login')
        }
        const right = await passwords.verify(secret, entry.hash, inTurn)
        if (right === undefined) return no('no password set, or a hash that this system does not know')
        if (!right) return no('wrong password')
      }
      const { uid, gid, maildir } = entry
      return { verdict: 'yes', maildrop: { uid, gid, maildir } }
    },
    close: () => {},
  }
}

/**
 * For unknown logins: somebody's hash, of the kind that most have. It costs the same, and its
 * result is thrown away.
 */
function decoyOf(entries: ReadonlyMap<string, PasswdEntry>): string {
  const kinds = new Map<string, { count: number; hash: string }>()
  for (const { hash } of entries.values()) {
    const kind = /^\{[^}]*\}|^\$[^$]*\$/.exec(hash)?.[0] ?? ''
    const row = kinds.get(kind) ?? { count: 0, hash }
    row.count += 1
    kinds.set(kind, row)
  }
  return [...kinds.values()].sort((a, b) => b.count - a.count)[0]?.hash ?? ''
}
