import { readdirSync, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { baseNameOf } from '../../wire/message-name.ts'
import { TimeSlice } from '../time-slice.ts'
import { filePath, statusOf } from './file-names.ts'
import { inMaildropOrder, type Message, messageOf } from './message.ts'

export interface Scan {
  /** In maildrop order: message 1 first. */
  readonly messages: readonly Message[]
  /** A file was left out only because it is of the current second, or of the future: the next scan may find it. */
  readonly incomplete: boolean
  readonly leftOut: LeftOut
}

/** Files that look like messages and are not listed. */
export interface LeftOut {
  readonly symbolicLinks: number
  /** Files whose time is more than FUTURE_TOLERANCE ahead. */
  readonly future: number
  /** One of them, e.g. `new/NAME`; undefined if there is none. */
  readonly example: string | undefined
}

/** Seconds by which the clock of a delivering host may be ahead before its messages are reported as left out. */
const FUTURE_TOLERANCE = 60

/** A directory file of this size holds a thousand names or so: too many to read while other sessions wait. */
const LARGE_DIRECTORY = 65_536

/**
 * Reads new/ and cur/ as spec/pop3d.md §2 has it: regular files whose names do not begin with a dot, older than the
 * second `now` (Unix time). A file with two names of the same base, which an interrupted move
 * leaves, is one message. Long
 * scans are divided, so that no other session of the process waits for them.
 * @throws the system's error if either folder cannot be read.
 */
export async function scanMaildir(maildir: string, now: number): Promise<Scan> {
  const messages: Message[] = []
  const linked = new Set<string>()
  const slice = new TimeSlice()
  let incomplete = false
  let symbolicLinks = 0
  let future = 0
  let example: string | undefined
  for (const folder of ['new', 'cur'] as const) {
    for (const name of await namesIn(`${maildir}/${folder}`)) {
      if (name.startsWith('.')) continue
      const pause = slice.pause()
      if (pause !== undefined) await pause
      const status = statusOf(filePath(maildir, folder, name))
      if (status === undefined) continue
      if (!status.isFile()) {
        if (!status.isSymbolicLink()) continue
        symbolicLinks += 1
        example ??= `${folder}/${name}`
        continue
      }
      const message = messageOf(folder, name, status)
      // Strictly older: a file of this second may still get neighbours that sort before it (spec/pop3d.md §2).
      if (message.mtime >= now) {
        incomplete = true
        if (message.mtime <= now + FUTURE_TOLERANCE) continue
        future += 1
        example ??= `${folder}/${name}`
        continue
      }
      if (status.nlink > 1) {
        const file = `${status.ino}/${baseNameOf(name)}`
        if (linked.has(file)) continue
        linked.add(file)
      }
      messages.push(message)
    }
  }
  // To sort ten thousand takes a slice by itself, and so does what the caller makes of them.
  await slice.pause()
  messages.sort(inMaildropOrder)
  await slice.pause()
  return { messages, incomplete, leftOut: { symbolicLinks, future, example } }
}

/** The names in a directory, one character per octet; at once for a small one. */
export function namesIn(path: string): readonly string[] | Promise<readonly string[]> {
  return statSync(path).size > LARGE_DIRECTORY
    ? readdir(path, { encoding: 'latin1' })
    : readdirSync(path, { encoding: 'latin1' })
}
