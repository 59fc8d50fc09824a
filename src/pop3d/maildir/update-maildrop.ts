import { monotonicClock } from '../../base/clock.ts'
import { TimeSlice } from '../time-slice.ts'
import { isTrashed } from './file-names.ts'
import { subtractFromQuota } from './maildir-quota.ts'
import type { Maildrop } from './maildrop.ts'

/** A message marked as deleted could not be removed. */
export interface RemovalFailure {
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
