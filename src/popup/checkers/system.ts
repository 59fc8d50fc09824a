/** The host's own accounts: the checker, and the lines of /etc/shadow. */
import { readFile } from 'node:fs/promises'
import { type Clock, systemClock } from '../../base/clock.ts'
import { messageOf } from '../../base/errors.ts'
import { accountNamed } from '../../libc/accounts.ts'
import { loginText } from '../../wire/login-event.ts'
import type { CheckQueue } from './check-queue.ts'
import { type Checker, maildirPath, no, temporary } from './checker.ts'
import { type AuthenticationCache, verifyPassword } from './password-hash.ts'

const DAY_MS = 86_400_000
/** For accounts that do not exist: a hash in Debian's form of a random password. */
const DECOY = '$y$j9T$5CeQfsY5NtBIVCXSkcKtz1$vIg7S3zeAZhsTB6XXoeSUUFlZ9R4v3zXv1T4dCZEPJ5'

/**
 * The host's own accounts by /etc/shadow, with the privileges of the account as checkpassword gives
 * them. Needs a monitor that is root. Sessions of root are refused like all of uid 0.
 */
export function systemChecker(
  options: { readonly maildir: string; readonly shadow?: string },
  passwords: AuthenticationCache,
  hashing: CheckQueue,
  clock: Clock = systemClock,
): Checker {
  const shadow = options.shadow ?? '/etc/shadow'
  return {
    check: async ({ login, secret, method, applicant }) => {
      const inTurn = <T>(work: () => Promise<T>): Promise<T> => hashing.run(applicant, work)
      if (method === 'apop') return no('system accounts have no APOP secrets')
      const name = loginText(login)
      const account = accountNamed(name)
      let text: string
      try {
        text = await readFile(shadow, 'utf8')
      } catch (error) {
        return temporary(`${shadow}: ${messageOf(error)}`)
      }
      const entry = shadowEntryOf(text, name)
      const isUnknown = entry === undefined || entry.hash === ''
      const right = await (isUnknown
        ? verifyPassword(secret, DECOY, inTurn)
        : passwords.verify(secret, entry.hash, inTurn))
      if (account === undefined || entry === undefined || entry.hash === '') return no('unknown login')
      if (right !== true)
        return no(right === false ? 'wrong password' : 'locked, or a hash that this system does not know')
      if (!isValidOn(entry, Math.floor(clock() / DAY_MS))) return no('account or password has expired')
      const maildir = maildirPath('', account.home, options.maildir)
      if (maildir === undefined) return temporary('the account has no home directory')
      return { kind: 'yes', maildrop: { uid: account.uid, gid: account.gid, maildir } }
    },
    close: () => {},
  }
}

/**
 * The fields of /etc/shadow for an account (shadow(5)); times in days since 1970, undefined if a
 * field is empty.
 */
type ShadowEntry = {
  readonly hash: string
  /** Number of days after its end for which an unchanged password is accepted. */
  readonly passwordEnds: number | undefined
  readonly accountEnds: number | undefined
}

/** Finds an account's line; undefined if there is none. */
export function shadowEntryOf(text: string, name: string): ShadowEntry | undefined {
  if (name === '' || name.includes(':')) return undefined
  const line = text.split('\n').find(candidate => candidate.startsWith(`${name}:`))
  if (line === undefined) return undefined
  const [, hash = '', changed, , longest, , inactive, ends] = line.split(':')
  const day = (field: string | undefined): number | undefined =>
    field !== undefined && /^\d+$/.test(field) ? Number(field) : undefined
  const [last, max, grace] = [day(changed), day(longest), day(inactive)]
  return {
    hash,
    passwordEnds: last === undefined || max === undefined || grace === undefined ? undefined : last + max + grace,
    accountEnds: day(ends),
  }
}

/** True if neither the account nor its password has ended. `today` in days since 1970. */
export const isValidOn = ({ passwordEnds, accountEnds }: ShadowEntry, today: number): boolean =>
  (passwordEnds === undefined || today <= passwordEnds) && (accountEnds === undefined || today < accountEnds)
