/** The lock that keeps two stacks from one state directory. */

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import { lockPidFile, type PidLock } from '../../libc/descriptors.ts'

/** A lock on a directory. It ends with `stop` or with the process. */
export type DirectoryLock = { stop(): Promise<void> }

/**
 * Makes sure that only one `auth-relay up` at a time works in a directory. The kernel keeps the
 * lock, so a killed process leaves none.
 * @throws TemporaryFault with the process that has the lock.
 * @throws UsageFault if the lock file cannot be written.
 */
export function lockDirectory(directory: string): DirectoryLock {
  const path = join(directory, 'up.lock')
  let lock: PidLock
  try {
    lock = lockPidFile(path)
  } catch (error) {
    const why = messageOf(error)
    throw new UsageFault(`cannot write in ${directory}: ${why}: start as root, or change state_dir`, error)
  }
  if ('holder' in lock) {
    throw new TemporaryFault(
      existsSync(`/proc/${lock.holder}`)
        ? `${directory} is in use by another auth-relay up (process ${lock.holder}): stop it, or choose another directory`
        : `another process holds a lock on ${path}: find it with fuser ${path} and stop it`,
    )
  }
  const { release } = lock
  return {
    async stop() {
      release()
    },
  }
}
