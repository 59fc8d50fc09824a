/** The lock that keeps two stacks from one state directory. */

import { closeSync, constants, existsSync, fchmodSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { messageOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import { tryLock } from '../../libc/descriptors.ts'

/** A lock on a directory. It ends with `stop` or with the process. */
export type DirectoryLock = { stop(): Promise<void> }

/**
 * Makes sure that only one `auth-relay up` at a time works in a directory. The kernel keeps the
 * lock, so a killed process leaves none. @throws TemporaryFault with the process that has the lock.
 */
export function lockDirectory(directory: string): DirectoryLock {
  const path = join(directory, 'up.lock')
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
    // Each account that can open the file can lock it. Older versions made it readable.
    fchmodSync(fd, 0o600)
  } catch (error) {
    const why = messageOf(error)
    throw new UsageFault(`cannot write in ${directory}: ${why}: start as root, or change state_dir`, error)
  }
  if (!tryLock(fd)) {
    const buffer = Buffer.alloc(16)
    const pid = buffer.toString('latin1', 0, readSync(fd, buffer, 0, buffer.length, 0)).trim()
    closeSync(fd)
    throw new TemporaryFault(
      existsSync(`/proc/${pid}`)
        ? `${directory} is in use by another auth-relay up (process ${pid}): stop it, or choose another directory`
        : `another process holds a lock on ${path}: find it with fuser ${path} and stop it`,
    )
  }
  ftruncateSync(fd)
  writeSync(fd, `${process.pid}\n`, 0)
  return {
    async stop() {
      closeSync(fd)
    },
  }
}
