import { linkSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { errorCodeOf } from '../../base/errors.ts'
import { MaildropInUse } from './maildrop-errors.ts'

/** The lock of RFC 1939 §4 for `lock = "exclusive"`: a file in the maildir that names the process holding it. */
const LOCK_FILE = 'pop3d.lock'

const held = new Set<string>()

/**
 * Locks a maildrop against other sessions of this and of other pop3d processes; the result gives it back. A lock whose
 * process is gone counts for nothing.
 * @throws MaildropInUse, or the system's error if the lock file cannot be written.
 */
export function lockMaildrop(maildir: string): () => void {
  const path = `${maildir}/${LOCK_FILE}`
  if (held.has(path)) throw new MaildropInUse(maildir)
  const own = identityOf(process.pid)
  if (own === undefined) throw new Error('/proc is not mounted: the exclusive lock needs it')
  // Written under another name and linked: nobody ever reads an unfinished lock.
  const draft = `${path}.${process.pid}`
  writeFileSync(draft, own, { mode: 0o600 })
  try {
    if (!linkLock(draft, path)) {
      removeIfStale(path, maildir)
      if (!linkLock(draft, path)) throw new MaildropInUse(maildir)
    }
  } finally {
    unlinkSync(draft)
  }
  held.add(path)
  return () => {
    if (held.delete(path)) rmSync(path, { force: true })
  }
}

function linkLock(draft: string, path: string): boolean {
  try {
    linkSync(draft, path)
    return true
  } catch (error) {
    if (errorCodeOf(error) === 'EEXIST') return false
    throw error
  }
}

function removeIfStale(path: string, maildir: string): void {
  const holder = contentOf(path)
  if (holder === undefined) return
  if (isAlive(holder)) throw new MaildropInUse(maildir)
  const aside = `${path}.${process.pid}.stale`
  try {
    renameSync(path, aside)
  } catch {
    return // another session was quicker
  }
  try {
    // Between reading and renaming another session may have replaced the stale lock by its own: that one goes back.
    if (contentOf(aside) !== holder) linkLock(aside, path)
  } finally {
    rmSync(aside, { force: true })
  }
}

function contentOf(path: string): string | undefined {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return undefined // it was given back meanwhile
  }
}

const isAlive = (holder: string): boolean => {
  const pid = Number(/^(\d{1,10}) \d+\n$/.exec(holder)?.[1] ?? 'NaN')
  return Number.isInteger(pid) && identityOf(pid) === holder
}

/** Process id and start time: an id that was given to another process since is not taken for the holder. */
function identityOf(pid: number): string | undefined {
  const status = contentOf(`/proc/${pid}/stat`)
  // proc(5): starttime is field 22; the name in parentheses may hold spaces, so count from its end.
  const started = status?.slice(status.lastIndexOf(')') + 2).split(' ')[19]
  return started === undefined ? undefined : `${pid} ${started}\n`
}
