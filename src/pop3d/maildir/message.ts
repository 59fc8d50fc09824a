import type { Stats } from 'node:fs'

/** One message of a maildrop, as the scan found it. */
export interface Message {
  /** Which folder held it at the scan. */
  readonly folder: 'new' | 'cur'
  /** File name below the folder, one character per octet (latin1). */
  readonly name: string
  /** Octets of the file. */
  readonly fileOctets: number
  /** Modification time in whole seconds: the order of the maildrop. */
  readonly mtime: number
  /** Modification time in milliseconds, as fine as the file system has it: tells a file that was changed in place. */
  readonly mtimeMs: number
  /** A rename keeps it: tells the message from another one of the same base name. */
  readonly inode: number
}

/** The message as the status of its file has it. */
export const messageOf = (folder: 'new' | 'cur', name: string, status: Stats): Message => ({
  folder,
  name,
  fileOctets: status.size,
  mtime: Math.floor(status.mtimeMs / 1000),
  mtimeMs: status.mtimeMs,
  inode: status.ino,
})

/** Whether the file was not changed since the message was looked at. */
export const isUnchanged = (message: Message, status: Stats): boolean =>
  status.ino === message.inode && status.size === message.fileOctets && status.mtimeMs === message.mtimeMs

/** spec/pop3d.md §2: by time, then by the octets of the name, then new before cur. Any order of ties is qmail's. */
export function inMaildropOrder(a: Message, b: Message): number {
  if (a.mtime !== b.mtime) return a.mtime - b.mtime
  if (a.name !== b.name) return a.name < b.name ? -1 : 1
  return a.folder === b.folder ? 0 : a.folder === 'new' ? -1 : 1
}
