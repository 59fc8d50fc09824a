import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs'

/** Octets from which on readers of the file count the maildir anew, as Maildir++ has it: a line more is of no use. */
const RECOUNTED_FROM = 5120

/**
 * Tells the Maildir++ quota of a maildir what was removed: one more line in `maildirsize`, in one
 * write, so that other programs
 * may append at the same time. Without the file there is no quota. A file that cannot be written is left alone: its
 * readers count the maildir anew from time to time.
 */
export function subtractFromQuota(
  maildir: string,
  removed: { readonly octets: number; readonly messages: number },
): void {
  let fd: number
  try {
    const { O_WRONLY, O_APPEND, O_NOFOLLOW, O_NONBLOCK } = constants
    fd = openSync(`${maildir}/maildirsize`, O_WRONLY | O_APPEND | O_NOFOLLOW | O_NONBLOCK)
  } catch {
    return
  }
  try {
    const status = fstatSync(fd)
    if (status.isFile() && status.size < RECOUNTED_FROM) writeSync(fd, `${-removed.octets} ${-removed.messages}\n`)
  } catch {
    // No space, or the file system is read-only: the messages are removed all the same.
  } finally {
    closeSync(fd)
  }
}
