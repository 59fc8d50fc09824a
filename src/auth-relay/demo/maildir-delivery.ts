import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, linkSync, openSync, unlinkSync, writeSync } from 'node:fs'
import { join } from 'node:path'

/**
 * Delivers a message the way maildir(5) says: written and synced in tmp, then linked into new, so
 * that a reader sees it whole or not at
 * all. Answers the file's name. Throws the file system's error; nothing is left in tmp then.
 */
export function deliverToMaildir(maildir: string, host: string, message: readonly Uint8Array[], now: Date): string {
  const seconds = Math.floor(now.getTime() / 1000)
  const safeHost = host.replaceAll('/', '\\057').replaceAll(':', '\\072')
  const name = `${seconds}.R${randomBytes(8).toString('hex')}P${process.pid}.${safeHost}`
  const temporary = join(maildir, 'tmp', name)
  const fd = openSync(temporary, 'wx', 0o600)
  try {
    try {
      for (const part of message) writeFully(fd, part)
      fsyncSync(fd)
    } finally {
      closeSync(fd)
    }
    linkSync(temporary, join(maildir, 'new', name))
  } finally {
    unlinkSync(temporary)
  }
  return name
}

function writeFully(fd: number, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at)
}
