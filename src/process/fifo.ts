/** Opens a FIFO for its reader, with the largest buffer that the host allows. */
import { closeSync, constants, fstatSync, openSync } from 'node:fs'
import { errorCodeOf, messageOf, UsageFault } from '../base/errors.ts'
import { setPipeSize } from '../libc/descriptors.ts'

/** An open FIFO. `capacity`: octets that it holds before its writers block or drop lines. */
export type OpenFifo = { readonly fd: number; readonly capacity: number; readonly inode: number }

/** Octets of a new pipe (pipe(7)). */
const DEFAULT_OCTETS = 65_536
/**
 * Octets of one second of lines at full speed. Without privilege the host allows less, usually 1
 * MiB (/proc/sys/fs/pipe-max-size).
 */
const WANTED_OCTETS = 16_777_216

/**
 * Opens a FIFO for reading, and makes it as large as the host allows. It is opened read-write and
 * non-blocking, so that the reader gets no end of file when writers restart, and never waits for a
 * writer.
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
    throw new UsageFault(`${setting}: ${path} is not a FIFO: replace it with: rm ${path} && mkfifo -m 600 ${path}`)
  }
  return { fd, capacity: enlarge(fd), inode: status.ino }
}

function enlarge(fd: number): number {
  for (let size = WANTED_OCTETS; size > DEFAULT_OCTETS; size /= 2) {
    try {
      return setPipeSize(fd, size)
    } catch {
      // EPERM: this host allows less, so try half. With a smaller pipe lines are lost earlier.
    }
  }
  return DEFAULT_OCTETS
}

function explain(path: string, setting: string, error: unknown): UsageFault {
  switch (errorCodeOf(error)) {
    case 'ENOENT':
      return new UsageFault(`${setting}: ${path} does not exist: create it with: mkfifo -m 600 ${path}`, error)
    case 'EACCES':
    case 'EPERM':
      return new UsageFault(`${setting}: no right to read and write ${path}: give it to the account of authd`, error)
    case 'EISDIR':
      return new UsageFault(`${setting}: ${path} is a directory and not a FIFO: change ${setting}`, error)
    default:
      return new UsageFault(`${setting}: cannot open ${path}: ${messageOf(error)}`, error)
  }
}
