/**
 * UPDATE: the removal of deleted messages, the move of new messages to cur/, and the Maildir++
 * quota.
 */
import { closeSync, constants, fstatSync, openSync, writeSync } from 'node:fs'
import { monotonicClock } from '../../base/clock.ts'
import { TimeSlice } from '../time-slice.ts'
import { isTrashed } from './folders.ts'
import type { Maildrop } from './maildrop.ts'

/** A deleted message that could not be removed. */
interface RemovalFailure {
  readonly number: number
  readonly cause: unknown
}

/**
 * UPDATE (RFC 1939 §6, spec/pop3d.md §5). In the order of the maildrop, removes the deleted
 * messages and moves the other messages of new/ to cur/, read or not. Each step is atomic, so after
 * a crash the first steps are done and the others are not. A file that another client has renamed
 * is found by base name and inode, unless `compat` is qmail.
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
      if (removal.kind === 'failed') {
        failures.push({ number, cause: removal.cause })
      } else if (removal.kind === 'missing') {
        // The message is already removed, as the client requested. In qmail this is a failure.
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
 * Size of `maildirsize` in octets from which on its readers count the maildir again (Maildir++). A
 * further line would have no effect.
 */
const RECOUNTED_FROM = 5120

/**
 * Subtracts the removed messages from the Maildir++ quota. The function appends one line to
 * `maildirsize` in one write, so that other programs may append at the same time. Without the file
 * there is no quota. A file that cannot be written stays as it is, because its readers count the
 * maildir again from time to time.
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
    // The disk is full or the file system is read-only. The messages are removed nevertheless.
  } finally {
    closeSync(fd)
  }
}
