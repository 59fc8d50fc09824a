import { linkSync, readFileSync, renameSync, rmSync, unlinkSync, writeFileSync } from 'node:fs'
import { errorCodeOf } from '../../base/errors.ts'

/** Why a maildrop cannot be opened, and the lock that is one of the reasons. */

/** The maildrop is not there, or its owner may not enter it. Creating it, or correcting its owner, helps. */
export class MaildropMissing extends Error {
  override readonly name = 'MaildropMissing'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`no maildrop at ${path}`, { cause })
    this.path = path
  }
}

/** new/ or cur/ is missing or cannot be read. */
export class MaildropUnreadable extends Error {
  override readonly name = 'MaildropUnreadable'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`cannot scan maildrop ${path}`, { cause })
    this.path = path
  }
}

/** Another session holds the maildrop, and `lock = "exclusive"`. Trying later helps. */
export class MaildropInUse extends Error {
  override readonly name = 'MaildropInUse'
  readonly path: string

  constructor(path: string) {
    super(`maildrop ${path} is in use`)
    this.path = path
  }
}

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
