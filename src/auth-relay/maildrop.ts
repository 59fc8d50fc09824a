/** Maildrops of accounts in popup.passwd_file: a missing one is reported, an empty one is made. */
import { spawnSync } from 'node:child_process'
import { chownSync, mkdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { errorCodeOf, messageOf, UsageFault } from '../base/errors.ts'
import type { Account } from '../libc/accounts.ts'

/** The owner of the empty maildrop that logins of devices share. */
export const DEVICE_ACCOUNT = 'auth-relay-device'

type Maildrop = { readonly uid: number; readonly gid: number; readonly maildir: string }

const foldersOf = (maildir: string): readonly string[] => ['', 'new', 'cur', 'tmp'].map(name => join(maildir, name))

/**
 * The command that makes the maildrop. Undefined if the maildrop exists, or if this process may not
 * look for it.
 */
export function remedyForMissing({ uid, gid, maildir }: Maildrop): string | undefined {
  try {
    statSync(join(maildir, 'new'))
    return undefined
  } catch (error) {
    if (errorCodeOf(error) !== 'ENOENT') return undefined
  }
  return `install -d -m 700 -o ${uid} -g ${gid} ${foldersOf(maildir).join(' ')}`
}

/**
 * Makes the home directory of an account and a maildrop in it, unless they exist. The account makes
 * the maildrop, so that a link in its home cannot lead root to another place.
 * @throws UsageFault if the account or this process lacks the right.
 */
export function makeMaildrop({ name, uid, gid, home }: Account): void {
  try {
    if (statSync(home, { throwIfNoEntry: false }) === undefined) {
      mkdirSync(home, { mode: 0o700 })
      chownSync(home, uid, gid)
    }
  } catch (error) {
    throw cannotMake(home, name, messageOf(error))
  }
  const maildir = join(home, 'Maildir')
  const { status, error, stderr } = spawnSync('install', ['-d', '-m', '700', ...foldersOf(maildir)], {
    uid,
    gid,
    encoding: 'utf8',
  })
  if (status !== 0) throw cannotMake(maildir, name, error === undefined ? stderr.trim() : messageOf(error))
}

const cannotMake = (path: string, account: string, reason: string): UsageFault =>
  new UsageFault(`cannot make ${path} for ${account}: ${reason}: start as root, or make the maildrop first`)
