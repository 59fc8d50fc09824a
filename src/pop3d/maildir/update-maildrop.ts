import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs'
import { monotonicClock } from '../../base/clock.ts'
import { TimeSlice } from '../time-slice.ts'
import { isTrashed } from './folders.ts'
import type { Maildrop } from './maildrop.ts'

/** A message marked as deleted could not be removed. */
interface RemovalFailure {
  readonly number: number
  readonly cause: unknown
}

/**
 * UPDATE state, RFC 1939 §6 and spec/pop3d.md §5: in the order of the maildrop, removes the
 * messages that are marked and moves
 * the rest of new/ to cur/, read or not. Each step is atomic, so a crash leaves a beginning of the
 * work. Files that another
 * client renamed meanwhile are found by base name and inode, unless `compat` is qmail.
 */
export async function updateMaildrop(
  maildrop: Maildrop,
  deleted: ReadonlySet<number>,
  compat: 'none' | 'qmail',
): Promise<readonly RemovalFailure[]> {
  if (deleted.size === 0 && maildrop.newCount === 0) return []
  const failures: RemovalFailure[] = []
  const began = monotonicClock()
  const slice = new TimeSlice()
  const removed = { octets: 0, messages: 0 }
  for (const [index, message] of maildrop.messages.entries()) {
    const number = index + 1
    if (deleted.has(number)) {
      const result = maildrop.files.remove(message, began)
      const removal = result instanceof Promise ? await result : result
      if (removal.type === 'failed') {
        failures.push({ number, cause: removal.cause })
      } else if (removal.type === 'gone') {
        // The client has what it asked for. To qmail it is a failure.
        if (compat === 'qmail') failures.push({ number, cause: new Error('it was renamed or removed meanwhile') })
      } else if (!isTrashed(removal.name)) {
        removed.octets += removal.octets
        removed.messages += 1
      }
    } else if (message.folder === 'new') {
      maildrop.files.moveToCur(message)
    }
    const pause = slice.pause()
    if (pause !== undefined) await pause
  }
  if (removed.messages > 0) subtractFromQuota(maildrop.path, removed)
  return failures
}

/**
 * Octets from which on readers of the file count the maildir anew, as Maildir++ has it: a line more
 * is of no use.
 */
const RECOUNTED_FROM = 5120

/**
 * Tells the Maildir++ quota of a maildir what was removed: one more line in `maildirsize`, in one
 * write, so that other programs may append at the same time. Without the file there is no quota. A
 * file that cannot be written is left alone: its readers count the maildir anew from time to time.
 */
function subtractFromQuota(maildir: string, removed: { readonly octets: number; readonly messages: number }): void {
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
