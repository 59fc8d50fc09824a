import { lstatSync, readdirSync, renameSync, unlinkSync } from 'node:fs'
import { errorCodeOf } from './error-code.ts'
import { filePath } from './file-path.ts'
import { baseNameOf, seenName } from './maildir-name.ts'
import type { Maildrop } from './maildrop.ts'
import type { Message } from './message.ts'
import { TimeSlice } from './time-slice.ts'

/** A message marked as deleted could not be removed. */
export interface RemovalFailure {
  readonly number: number
  readonly cause: unknown
}

/**
 * UPDATE state, RFC 1939 §6 and spec/pop3d.md §5: in the order of the maildrop, removes what is marked and moves the rest
 * of new/ to cur/, read or not. Each step is atomic, so a crash leaves a beginning of the work. Files that another client
 * renamed meanwhile are found by their base name, unless `compat` is qmail.
 */
export async function updateMaildrop(
  maildrop: Maildrop,
  deleted: ReadonlySet<number>,
  compat: 'none' | 'qmail',
): Promise<readonly RemovalFailure[]> {
  if (deleted.size === 0 && maildrop.newCount === 0) return []
  const failures: RemovalFailure[] = []
  const slice = new TimeSlice()
  let moved: ReadonlyMap<string, string> | undefined
  for (const [index, message] of maildrop.messages.entries()) {
    const number = index + 1
    if (deleted.has(number)) {
      const cause = removeFile(filePath(maildrop.path, message.folder, message.name))
      if (cause === undefined) continue
      if (compat === 'qmail') {
        failures.push({ number, cause })
      } else if (errorCodeOf(cause) !== 'ENOENT') {
        failures.push({ number, cause })
      } else {
        moved ??= namesByBase(maildrop.path)
        const name = moved.get(baseNameOf(message.name))
        // Gone altogether: what the client asked for.
        const again = name === undefined ? undefined : removeFile(filePath(maildrop.path, 'cur', name))
        if (again !== undefined && errorCodeOf(again) !== 'ENOENT') failures.push({ number, cause: again })
      }
    } else if (message.folder === 'new') {
      moveToCur(maildrop.path, message, compat)
    }
    const pause = slice.pause()
    if (pause !== undefined) await pause
  }
  return failures
}

function removeFile(path: string | Buffer): unknown {
  try {
    unlinkSync(path)
    return undefined
  } catch (error) {
    return error
  }
}

function moveToCur(maildir: string, { name }: Message, compat: 'none' | 'qmail'): void {
  const target = filePath(maildir, 'cur', seenName(name, compat))
  try {
    // rename(2) would replace a message of that name, which nobody has deleted (RFC 1939 §6).
    if (lstatSync(target, { throwIfNoEntry: false }) === undefined) renameSync(filePath(maildir, 'new', name), target)
  } catch {
    // Another client moved or removed it: the message is where that client wanted it (spec/pop3d.md §5).
  }
}

function namesByBase(maildir: string): ReadonlyMap<string, string> {
  try {
    return new Map(readdirSync(`${maildir}/cur`, { encoding: 'latin1' }).map(name => [baseNameOf(name), name]))
  } catch {
    // cur/ is gone: so is everything in it.
    return new Map()
  }
}
