import { lstatSync, readdirSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { filePath } from './file-path.ts'
import { inMaildropOrder, type Message } from './message.ts'
import { TimeSlice } from './time-slice.ts'

export interface Scan {
  /** In maildrop order: message 1 first. */
  readonly messages: readonly Message[]
  /** A file was left out only because it is of the current second, or of the future: the next scan may find it. */
  readonly incomplete: boolean
}

/** A directory file of this size holds a thousand names or so: too many to read while other sessions wait. */
const LARGE_DIRECTORY = 65_536

/**
 * Reads new/ and cur/ as spec/pop3d.md §2 has it: regular files whose names do not begin with a dot, older than the
 * second `now` (Unix time). Long scans are divided, so that no other session of the process waits for them.
 * @throws the system's error if either folder cannot be read.
 */
export async function scanMaildir(maildir: string, now: number): Promise<Scan> {
  const messages: Message[] = []
  const slice = new TimeSlice()
  let incomplete = false
  for (const folder of ['new', 'cur'] as const) {
    for (const name of await namesIn(`${maildir}/${folder}`)) {
      if (name.startsWith('.')) continue
      const pause = slice.pause()
      if (pause !== undefined) await pause
      const status = statusOf(filePath(maildir, folder, name))
      if (status === undefined || !status.isFile()) continue
      const mtime = Math.floor(status.mtimeMs / 1000)
      // Strictly older: a file of this second may still get neighbours that sort before it (spec/pop3d.md §2).
      if (mtime < now) messages.push({ folder, name, fileOctets: status.size, mtime })
      else incomplete = true
    }
  }
  // To sort ten thousand takes a slice by itself, and so does what the caller makes of them.
  await slice.pause()
  messages.sort(inMaildropOrder)
  await slice.pause()
  return { messages, incomplete }
}

function namesIn(path: string): readonly string[] | Promise<readonly string[]> {
  return statSync(path).size > LARGE_DIRECTORY
    ? readdir(path, { encoding: 'latin1' })
    : readdirSync(path, { encoding: 'latin1' })
}

function statusOf(path: string | Buffer) {
  try {
    return lstatSync(path, { throwIfNoEntry: false })
  } catch {
    // As qmail: what cannot be looked at is no message of this session.
    return undefined
  }
}
