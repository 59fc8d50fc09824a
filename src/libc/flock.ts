import { lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const flockCall = nativeFunction('int flock(int fd, int operation)')
const [LOCK_EX, LOCK_NB] = [2, 4]
const EWOULDBLOCK = 11

/**
 * Takes the exclusive lock of an open file without waiting; false if another process holds it. The kernel gives it back when the
 * descriptor is closed, so also at any death of the process (flock(2)). Throws SystemCallError.
 */
export function tryLock(descriptor: number): boolean {
  if (flockCall(descriptor, LOCK_EX | LOCK_NB) === 0) return true
  const errno = lastErrno()
  if (errno === EWOULDBLOCK) return false
  throw new SystemCallError('flock', errno)
}
