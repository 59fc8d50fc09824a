import { constants } from 'node:os'
import { lastErrno, nativeFunction, SystemCallError } from './native-function.ts'

const recv = nativeFunction('long recv(int fd, void *buffer, size_t size, int flags)')
const MSG_DONTWAIT = 0x40

/**
 * Takes at most `size` octets that have arrived on a socket and not one more, so that the rest stays for another process. Empty at the end of the
 * stream; undefined if nothing has arrived yet. Never waits. Throws SystemCallError.
 */
export function receive(descriptor: number, size: number): Buffer | undefined {
  const buffer = Buffer.alloc(size)
  const count = recv(descriptor, buffer, size, MSG_DONTWAIT)
  if (count >= 0) return buffer.subarray(0, count)
  const errno = lastErrno()
  if (errno === constants.errno.EAGAIN || errno === constants.errno.EINTR) return undefined
  throw new SystemCallError('recv', errno)
}
