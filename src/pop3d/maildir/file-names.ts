import { lstatSync, type Stats } from 'node:fs'

/** The name a message of new/ gets in cur/ at QUIT: with flags, none set; a name that has flags already keeps them. */
export const seenName = (name: string, compat: 'none' | 'qmail'): string =>
  compat === 'none' && name.includes(':') ? name : `${name}:2,`

/** Whether the name has the flag T: Maildir++ does not count such a message against the quota. */
export const isTrashed = (name: string): boolean => /:2,[^:]*T/.test(name)

/** Path of a message file. Node takes a path of bytes only as a Buffer, so names that are not ASCII become one. */
export function filePath(maildir: string, folder: string, name: string): string | Buffer {
  if (/^[\x01-\x7f]*$/.test(name)) return `${maildir}/${folder}/${name}`
  return Buffer.concat([Buffer.from(`${maildir}/${folder}/`, 'utf8'), Buffer.from(name, 'latin1')])
}

/** The status of a file, of a symbolic link itself; undefined if there is none or it cannot be looked at. */
export function statusOf(path: string | Buffer): Stats | undefined {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // As qmail: a file that cannot be looked at is no message of this session.
    return undefined
  }
}
