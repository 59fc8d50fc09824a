import { lstatSync, type Stats } from 'node:fs'

/** The status of a file, of a symbolic link itself; undefined if there is none or it cannot be looked at. */
export function statusOf(path: string | Buffer): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // As qmail: a file that cannot be looked at is no message of this session.
    return undefined
  }
}
