import {
  closeSync,
  constants,
  fstatSync,
  lstatSync,
  openSync,
  readdirSync,
  type Stats,
  statSync,
  unlinkSync,
} from 'node:fs'
import { asError, errorCodeOf } from '../../base/errors.ts'

/**
 * The files and folders of a maildir as the file system has them: names, paths, status, the
 * abandoned files in tmp/.
 */

/**
 * The name a message of new/ gets in cur/ at QUIT: with flags, none set; a name that has flags
 * already keeps them.
 */
export const seenName = (name: string, compat: 'none' | 'qmail'): string =>
  compat === 'none' && name.includes(':') ? name : `${name}:2,`

/** Whether the name has the flag T: Maildir++ does not count such a message against the quota. */
export const isTrashed = (name: string): boolean => /:2,[^:]*T/.test(name)

/**
 * Path of a message file. Node takes a path of bytes only as a Buffer, so names that are not ASCII
 * become one.
 */
export function filePath(maildir: string, folder: string, name: string): string | Buffer {
  if (/^[\x01-\x7f]*$/.test(name)) return `${maildir}/${folder}/${name}`
  return Buffer.concat([Buffer.from(`${maildir}/${folder}/`, 'utf8'), Buffer.from(name, 'latin1')])
}

/**
 * The status of a file, of a symbolic link itself; undefined if there is none or it cannot be
 * looked at.
 */
export function statusOf(path: string | Buffer): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // As qmail: a file that cannot be looked at is no message of this session.
    return undefined
  }
}

/**
 * The status of new/ and of cur/: as long as it stays the same, no file came, went or changed its
 * name.
 */
export type Folders = readonly [Stats, Stats]

/**
 * Milliseconds for which a directory must have been quiet: its time stamp is too coarse to tell two
 * quick changes.
 */
const QUIET_TIME = 2_000

/** @throws the system's error if either folder is missing or cannot be looked at. */
export const statFolders = (maildir: string): Folders => [statSync(`${maildir}/new`), statSync(`${maildir}/cur`)]

/**
 * Times are doubles, fine to a quarter of a microsecond: finer than any that QUIET_TIME leaves
 * open.
 */
export const areSame = (then: Folders, now: Folders): boolean => isSame(then[0], now[0]) && isSame(then[1], now[1])

/**
 * Whether a later change of a folder that was looked at at `now` (Unix milliseconds) shows in its
 * status.
 */
export const areQuiet = (folders: Folders, now: number): boolean =>
  folders.every(({ mtimeMs }) => now - mtimeMs > QUIET_TIME)

const isSame = (then: Stats, now: Stats): boolean =>
  then.mtimeMs === now.mtimeMs && then.ctimeMs === now.ctimeMs && then.ino === now.ino && then.dev === now.dev

/** No symbolic link is followed, and a FIFO that took the place of the file does not block. */
const OPEN_MESSAGE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/**
 * A message file: open, with its status at that moment; gone; or there and closed to us, with the
 * cause.
 */
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

/**
 * Seconds after its last access that a file in tmp/ is the remains of a failed delivery: 36 hours
 * (maildir(5)).
 */
const ABANDONED_AFTER = 129_600

/** Removes what deliveries left behind in tmp/. `now` in Unix seconds. */
export function cleanTmp(maildir: string, now: number): void {
  try {
    for (const name of readdirSync(`${maildir}/tmp`, { encoding: 'latin1' })) {
      if (!name.startsWith('.')) removeIfAbandoned(filePath(maildir, 'tmp', name), now)
    }
  } catch {
    // No tmp/, or not ours to read: nothing that a mail reader needs (spec/pop3d.md §2).
  }
}

function removeIfAbandoned(path: string | Buffer, now: number): void {
  try {
    if (now > Math.floor(lstatSync(path).atimeMs / 1000) + ABANDONED_AFTER) unlinkSync(path)
  } catch {
    // A delivery has just moved it, or it is a directory: either way not abandoned mail.
  }
}
