/**
 * Files and folders of a maildir in the file system: names, paths, status, abandoned files in tmp/.
 */
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
 * Returns the name that a message of new/ gets in cur/ at QUIT. A name without flags gets an empty
 * set of flags.
 */
export const seenName = (name: string, compat: 'none' | 'qmail'): string =>
  compat === 'none' && name.includes(':') ? name : `${name}:2,`

/** True if the name has the flag T. Maildir++ does not count such a message against the quota. */
export const isTrashed = (name: string): boolean => /:2,[^:]*T/.test(name)

/**
 * Returns the path of a message file. Node accepts a path that is not UTF-8 only as a Buffer, so a
 * name outside ASCII becomes a Buffer.
 */
export function filePath(maildir: string, folder: string, name: string): string | Buffer {
  if (/^[\x01-\x7f]*$/.test(name)) return `${maildir}/${folder}/${name}`
  return Buffer.concat([Buffer.from(`${maildir}/${folder}/`, 'utf8'), Buffer.from(name, 'latin1')])
}

/**
 * Returns the status of a file, or of a symbolic link itself; undefined if it is missing or not
 * accessible.
 */
export function statusOf(path: string | Buffer): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // A file without a readable status is not a message of this session, as in qmail.
    return undefined
  }
}

/**
 * The status of new/ and of cur/. While both stay the same, no file was added, removed or renamed.
 */
export type Folders = readonly [Stats, Stats]

/**
 * Milliseconds without a change after which the time stamp of a directory is reliable. Within this
 * time, two quick changes can have the same stamp.
 */
const QUIET_TIME_MS = 2_000

/**
 * Reads the status of both folders.
 * @throws the system's error if a folder is missing or not accessible.
 */
export const statFolders = (maildir: string): Folders => [statSync(`${maildir}/new`), statSync(`${maildir}/cur`)]

/**
 * Times are doubles with a resolution of 0.25 µs. QUIET_TIME_MS makes a finer resolution
 * unnecessary.
 */
export const areSame = (then: Folders, now: Folders): boolean => isSame(then[0], now[0]) && isSame(then[1], now[1])

/**
 * True if the status will show a change of a folder after `now` (Unix milliseconds), when the
 * status was read.
 */
export const areQuiet = (folders: Folders, now: number): boolean =>
  folders.every(({ mtimeMs }) => now - mtimeMs > QUIET_TIME_MS)

const isSame = (then: Stats, now: Stats): boolean =>
  then.mtimeMs === now.mtimeMs && then.ctimeMs === now.ctimeMs && then.ino === now.ino && then.dev === now.dev

/** Symbolic links are not followed, and a FIFO in place of the file does not block. */
const OPEN_MESSAGE = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK

/**
 * Result of opening a message file: open, with the status at that time; missing; or not accessible,
 * with the cause.
 */
export type OpenedMessage =
  | { readonly kind: 'open'; readonly fd: number; readonly status: Stats }
  | { readonly kind: 'missing' }
  | { readonly kind: 'unreadable'; readonly cause: Error }

/** Opens a message file for reading; never throws. A link or a directory is `unreadable`. */
export function openMessage(path: string | Buffer): OpenedMessage {
  let fd: number
  try {
    fd = openSync(path, OPEN_MESSAGE)
  } catch (error) {
    if (errorCodeOf(error) === 'ENOENT') return { kind: 'missing' }
    return { kind: 'unreadable', cause: asError(error) }
  }
  let cause = new Error('not a regular file')
  try {
    const status = fstatSync(fd)
    if (status.isFile()) return { kind: 'open', fd, status }
  } catch (error) {
    cause = asError(error) // ESTALE of a network file system
  }
  closeSync(fd)
  return { kind: 'unreadable', cause }
}

/**
 * Seconds after the last access after which a file in tmp/ is the remains of a failed delivery: 36
 * hours (maildir(5)).
 */
const ABANDONED_AFTER_S = 129_600

/** Removes the remains of failed deliveries in tmp/. `now` in Unix seconds. */
export function cleanTmp(maildir: string, now: number): void {
  try {
    for (const name of readdirSync(`${maildir}/tmp`, { encoding: 'latin1' })) {
      if (!name.startsWith('.')) removeIfAbandoned(filePath(maildir, 'tmp', name), now)
    }
  } catch {
    // tmp/ is missing or not readable. Reading messages does not need it (spec/pop3d.md §2).
  }
}

function removeIfAbandoned(path: string | Buffer, now: number): void {
  try {
    if (now > Math.floor(lstatSync(path).atimeMs / 1000) + ABANDONED_AFTER_S) unlinkSync(path)
  } catch {
    // A delivery has just moved the file, or it is a directory. It is not the remains of a
    // delivery.
  }
}
