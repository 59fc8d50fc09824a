/** The lock of a maildrop against other sessions (RFC 1939 §4). */
import { closeSync, constants, openSync } from 'node:fs'
import { tryLock } from '../../libc/descriptors.ts'

/**
 * Another session holds the maildrop, and `lock = "exclusive"` is set. The client can try again
 * later.
 */
export class MaildropInUse extends Error {
  override readonly name = 'MaildropInUse'
  readonly path: string

  constructor(path: string) {
    super(`maildrop ${path} is in use`)
    this.path = path
  }
}

/** File for the lock of RFC 1939 §4 with `lock = "exclusive"`. It stays in the maildir. */
const LOCK_FILE = 'pop3d.lock'

/**
 * Locks a maildrop against the other sessions of all pop3d processes. Returns a function that
 * releases the lock. The kernel holds the lock, so a killed process leaves none.
 * @throws MaildropInUse, or the system's error if the lock file cannot be opened.
 */
export function lockMaildrop(maildir: string): () => void {
  const fd = openSync(`${maildir}/${LOCK_FILE}`, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  try {
    if (!tryLock(fd)) throw new MaildropInUse(maildir)
  } catch (error) {
    closeSync(fd)
    throw error
  }
  return () => closeSync(fd)
}
