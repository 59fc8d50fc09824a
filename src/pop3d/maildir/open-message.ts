import { closeSync, constants, fstatSync, openSync, type Stats } from 'node:fs'
import { asError, errorCodeOf } from '../../base/errors.ts'

/** No symbolic link is followed, and a FIFO that took the place of the file does not block. */
const OPEN_MESSAGE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/** A message file: open, with its status at that moment; gone; or there and closed to us, with the cause. */
export type OpenedMessage =
  | { readonly type: 'open'; readonly fd: number; readonly status: Stats }
  | { readonly type: 'gone' }
  | { readonly type: 'unreadable'; readonly cause: Error }

export function openMessage(path: string | Buffer): OpenedMessage {
  let fd: number
  try {
    fd = openSync(path, OPEN_MESSAGE)
  } catch (error) {
    if (errorCodeOf(error) === 'ENOENT') return { type: 'gone' }
    return { type: 'unreadable', cause: asError(error) }
  }
  const status = fstatSync(fd)
  if (status.isFile()) return { type: 'open', fd, status }
  closeSync(fd)
  return { type: 'unreadable', cause: new Error('not a regular file') }
}
