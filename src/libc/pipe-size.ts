import { checked, nativeFunction } from './native-function.ts'

const fcntl = nativeFunction('int fcntl(int fd, int command, int argument)')
const F_SETPIPE_SZ = 1031

/**
 * Asks for a larger pipe or FIFO and answers the size in bytes that the kernel gave. Throws SystemCallError: EPERM above
 * /proc/sys/fs/pipe-max-size (1 MiB as a rule), EBADF if it is no pipe.
 */
export const setPipeSize = (descriptor: number, bytes: number): number =>
  checked('fcntl(F_SETPIPE_SZ)', fcntl(descriptor, F_SETPIPE_SZ, bytes))
