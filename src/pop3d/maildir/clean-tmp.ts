import { lstatSync, readdirSync, unlinkSync } from 'node:fs'
import { filePath } from './file-names.ts'

/** Seconds after its last access that a file in tmp/ is the remains of a failed delivery: 36 hours (maildir(5)). */
const ABANDONED_AFTER = 129_600

/** Removes what deliveries left behind in tmp/. `now` in Unix seconds. */
export function cleanTmp(maildir: string, now: number): void {
  try {
    for (const name of readdirSync(`${maildir}/tmp`, { encoding: 'latin1' })) {
      if (!name.startsWith('.')) removeIfAbandoned(filePath(maildir, 'tmp', name), now)
    }
  } catch {
    // No tmp/, or not ours to read: nothing that a mail reader needs (spec/pop3d.md §2).
  }
}

function removeIfAbandoned(path: string | Buffer, now: number): void {
  try {
    if (now > Math.floor(lstatSync(path).atimeMs / 1000) + ABANDONED_AFTER) unlinkSync(path)
  } catch {
    // A delivery has just moved it, or it is a directory: either way not abandoned mail.
  }
}
