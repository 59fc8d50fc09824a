/** System calls about descriptors: flags, copies, pipes and locks. */
import { closeSync, constants, fchmodSync, ftruncateSync, openSync, readSync, writeSync } from 'node:fs'
import { checked, lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const fcntl = nativeFunction('int fcntl(int fd, int command, int argument)')
const pipe2 = nativeFunction('int pipe2(void *descriptors, int flags)')
const flock = nativeFunction('int flock(int fd, int operation)')

const [F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC, F_SETPIPE_SZ] = [2, 3, 4, 1030, 1031]
const FD_CLOEXEC = 1
const O_NONBLOCK = 0o4000
const O_CLOEXEC = 0o2000000
const [LOCK_EX, LOCK_NB] = [2, 4]
const EWOULDBLOCK = 11

/**
 * Makes a descriptor blocking or non-blocking. The flag belongs to the open file, so it applies in
 * every process that has the file. A program written for a blocking socket must not inherit a
 * socket of the event loop unchanged. Throws SystemCallError.
 */
export function setBlocking(descriptor: number, blocking: boolean): void {
  const flags = checked('fcntl', fcntl(descriptor, F_GETFL, 0))
  const wanted = blocking ? flags & ~O_NONBLOCK : flags | O_NONBLOCK
  if (wanted !== flags) checked('fcntl', fcntl(descriptor, F_SETFL, wanted))
}

/**
 * Sets whether the kernel closes the descriptor when another program replaces this process. Throws
 * SystemCallError.
 */
export function setCloseOnExec(descriptor: number, close: boolean): void {
  checked('fcntl', fcntl(descriptor, F_SETFD, close ? FD_CLOEXEC : 0))
}

/**
 * Another descriptor, at least `lowest`, for the same open file, close-on-exec. Throws
 * SystemCallError.
 */
export const duplicateDescriptor = (descriptor: number, lowest = 3): number =>
  checked('fcntl(F_DUPFD_CLOEXEC)', fcntl(descriptor, F_DUPFD_CLOEXEC, lowest))

/**
 * An anonymous pipe: blocking, both ends close-on-exec. The caller closes them. Throws
 * SystemCallError (EMFILE).
 */
export function openPipe(): { readonly readEnd: number; readonly writeEnd: number } {
  const descriptors = Buffer.alloc(8)
  checked('pipe2', pipe2(descriptors, O_CLOEXEC))
  return { readEnd: descriptors.readInt32LE(0), writeEnd: descriptors.readInt32LE(4) }
}

/**
 * Sets the size of a pipe or FIFO and returns the size in bytes that the kernel chose. Throws
 * SystemCallError: EPERM above /proc/sys/fs/pipe-max-size (1 MiB as a rule), EBADF if the
 * descriptor is not a pipe.
 */
export const setPipeSize = (descriptor: number, bytes: number): number =>
  checked('fcntl(F_SETPIPE_SZ)', fcntl(descriptor, F_SETPIPE_SZ, bytes))

/**
 * Takes the exclusive lock of an open file without waiting; false if another process holds it. The
 * kernel releases the lock when the descriptor is closed, so also when the process dies (flock(2)).
 * Throws SystemCallError.
 */
export function tryLock(descriptor: number): boolean {
  if (flock(descriptor, LOCK_EX | LOCK_NB) === 0) return true
  const errno = lastErrno()
  if (errno === EWOULDBLOCK) return false
  throw new SystemCallError('flock', errno)
}

/** A lock on a file: the function that releases it, or the process id in the file of its holder. */
export type PidLock = { readonly release: () => void } | { readonly holder: string }

/**
 * Takes the lock of a file, and writes the id of this process into it, for messages. Makes a
 * missing file. The lock ends with `release` or with the process. Throws if the file cannot be
 * opened.
 */
export function lockPidFile(path: string): PidLock {
  const descriptor = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  try {
    // Each account that can open the file can lock it. Older versions made it readable.
    fchmodSync(descriptor, 0o600)
    if (!tryLock(descriptor)) {
      const buffer = Buffer.alloc(16)
      const holder = buffer.toString('latin1', 0, readSync(descriptor, buffer, 0, buffer.length, 0)).trim()
      closeSync(descriptor)
      return { holder }
    }
    ftruncateSync(descriptor)
    writeSync(descriptor, `${process.pid}\n`, 0)
  } catch (error) {
    closeSync(descriptor)
    throw error
  }
  let isHeld = true
  return {
    release: () => {
      // A second close could close a file that another part of the process has opened since.
      if (isHeld) closeSync(descriptor)
      isHeld = false
    },
  }
}
