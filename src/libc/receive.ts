import { SystemCallError } from './native-function.ts'
import { isLater, receiveInto } from './socket-io.ts'

/**
 * Takes at most `size` octets that have arrived on a socket and not one more, so that the rest stays for another process. Empty at the end of the
 * stream; undefined if nothing has arrived yet. Never waits. Throws SystemCallError.
 */
export function receive(descriptor: number, size: number): Buffer | undefined {
  const buffer = Buffer.alloc(size)
  const count = receiveInto(descriptor, buffer)
  if (count >= 0) return buffer.subarray(0, count)
  if (isLater(count)) return undefined
  throw new SystemCallError('recv', -count)
}
