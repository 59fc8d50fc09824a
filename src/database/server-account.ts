/** The account of the embedded server, its process, and the owner of its directory. */
import { chown, lchown, readdir, readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { messageOf } from '../base/errors.ts'
import { lockPidFile, type PidLock } from '../libc/descriptors.ts'
import { EmbeddedServerFault } from './errors.ts'

/** Ids under which the embedded server runs. */
export type ServerAccount = { readonly uid: number; readonly gid: number }

/**
 * The account that runs initdb for a server account. initdb needs an account with a name;
 * PostgreSQL itself does not. Ids without a name are for tests and demonstrations: initdb then runs
 * as `nobody`, and the files are given to the ids afterwards.
 * @throws EmbeddedServerFault if the host has neither.
 */
export async function initialAccount(account: ServerAccount): Promise<ServerAccount> {
  let nobody: ServerAccount | undefined
  for (const line of (await readFile('/etc/passwd', 'utf8')).split('\n')) {
    const [name = '', , uid = '', gid = ''] = line.split(':')
    if (uid === String(account.uid)) return account
    if (name === 'nobody' && /^\d+$/.test(uid) && /^\d+$/.test(gid)) nobody = { uid: Number(uid), gid: Number(gid) }
  }
  if (nobody !== undefined && nobody.uid !== 0) return nobody
  throw new EmbeddedServerFault(
    `initdb needs an account with a name, and uid ${account.uid} has none: name one in database.embedded_user`,
  )
}

/**
 * True if the account may pass through `path` and every directory above it. auth-relay creates the
 * missing ones.
 */
export async function canReach(path: string, { uid, gid }: ServerAccount): Promise<boolean> {
  for (let directory = path; ; directory = dirname(directory)) {
    const found = await stat(directory).catch(() => undefined)
    if (found !== undefined) {
      const shift = found.uid === uid ? 6 : found.gid === gid ? 3 : 0
      if (((found.mode >> shift) & 0o1) === 0) return false
    }
    if (directory === dirname(directory)) return true
  }
}

/** Gives a path to the server's account. */
export async function giveTo(path: string, account: ServerAccount | undefined): Promise<void> {
  if (account !== undefined) await lchown(path, account.uid, account.gid)
}

/**
 * Gives a directory with everything below it to the server's account; true if another account had
 * it. The directory itself comes last, so that an interrupted change is repeated at the next start.
 */
export async function giveTreeTo(directory: string, account: ServerAccount | undefined): Promise<boolean> {
  if (account === undefined) return false
  const { uid, gid } = await stat(directory)
  if (uid === account.uid && gid === account.gid) return false
  for (const entry of await readdir(directory, { recursive: true })) await giveTo(join(directory, entry), account)
  await chown(directory, account.uid, account.gid)
  return true
}

/**
 * A process, distinguished from a later one with the same number by its start time (proc(5), field
 * 22 of stat, in clock ticks).
 */
type ProcessIdentity = { readonly pid: number; readonly start: string }

/** The process with this id; undefined if there is none. A zombie does not count. */
export async function identityOf(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readFile(`/proc/${pid}/stat`, 'latin1').catch(() => undefined)
  // The second field is the program's name in parentheses and may hold anything, parentheses
  // included.
  const fields = stat?.slice(stat.lastIndexOf(')') + 2).split(' ')
  const start = fields?.[19]
  return start === undefined || fields?.[0] === 'Z' ? undefined : { pid, start }
}

/**
 * Ensures a single owner. The kernel keeps the lock on `owner.pid`, so a killed process leaves
 * none. The file contains the process id of the last owner, for the message. Returns a function
 * that releases the lock.
 */
export function takeOwnership(base: string): () => void {
  let lock: PidLock
  try {
    lock = lockPidFile(join(base, 'owner.pid'))
  } catch (error) {
    throw new EmbeddedServerFault(`cannot write to ${base}: ${messageOf(error)}`, { cause: error })
  }
  if ('release' in lock) return lock.release
  throw new EmbeddedServerFault(
    `process ${lock.holder} already runs the database in ${base}: stop it, or use another directory`,
  )
}
