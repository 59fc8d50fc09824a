import { closeSync, constants, fstatSync, openSync } from 'node:fs'

/** No symbolic link is followed, and a FIFO that took the place of the file does not hold us up. */
export const OPEN_MESSAGE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** A message file that is open, and its size at that moment. */
export type OpenMessage = { readonly fd: number; readonly octets: number }

/** Opens a message file; undefined if it is gone, renamed, unreadable or no longer a regular file. */
export function openMessage(path: string | Buffer): OpenMessage | undefined {
  let fd: number
  try {
    fd = openSync(path, OPEN_MESSAGE)
  } catch {
    // The client is told; it happens whenever another client removed or renamed the message.
    return undefined
  }
  const status = fstatSync(fd)
  if (status.isFile()) return { fd, octets: status.size }
  closeSync(fd)
  return undefined
}
