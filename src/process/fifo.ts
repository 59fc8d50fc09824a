import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { errorCodeOf, messageOf, UsageFault } from '../base/errors.ts'
import { setPipeSize } from '../libc/descriptors.ts'

/** An open FIFO and how many octets it holds before its writers block or drop. */
export type OpenFifo = { readonly fd: number; readonly capacity: number; readonly inode: number }

const LINUX_DEFAULT = 65_536
/**
 * A second of lines at full speed. Without privilege the host allows less, 1 MiB as a rule
 * (/proc/sys/fs/pipe-max-size).
 */
const WANTED = 16_777_216

/**
 * Opens a FIFO for reading, read-write and non-blocking: the reader never sees an end of file when
 * writers restart, and never waits for a writer. The FIFO is made as large as the host allows.
 * @throws UsageFault if the file is missing, has another type, or is not readable; `setting` is the
 * name for the message.
 */
export function openFifo(path: string, setting: string): OpenFifo {
  let fd: number
  try {
    fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
  } catch (error) {
    throw explain(path, setting, error)
  }
  const status = fstatSync(fd)
  if (!status.isFIFO()) {
    closeSync(fd)
    throw new UsageFault(`${path} is not a FIFO: remove it and make one with: mkfifo -m 600 ${path}`)
  }
  return { fd, capacity: enlarge(fd), inode: status.ino }
}

function enlarge(fd: number): number {
  for (let size = WANTED; size > LINUX_DEFAULT; size /= 2) {
    try {
      return setPipeSize(fd, size)
    } catch {
      // EPERM: this host allows less, so half is tried. With a smaller pipe lines are lost earlier.
    }
  }
  return LINUX_DEFAULT
}

function explain(path: string, setting: string, error: unknown): UsageFault {
  switch (errorCodeOf(error)) {
    case 'ENOENT':
      return new UsageFault(`${setting}: there is no ${path}: make it with: mkfifo -m 600 ${path}`, error)
    case 'EACCES':
    case 'EPERM':
      return new UsageFault(`${setting}: no right to read and write ${path}: give it to the account of authd`, error)
    case 'EISDIR':
      return new UsageFault(`${path} is a directory and not a FIFO: change ${setting}`, error)
    default:
      return new UsageFault(`${setting}: cannot open ${path}: ${messageOf(error)}`, error)
  }
}
