import { createHash } from 'node:crypto'
import { readdirSync, type Stats, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { baseNameOf, isUniqueId } from '../../wire/message-name.ts'
import { TimeSlice } from '../time-slice.ts'
import { filePath, statusOf } from './folders.ts'

/** The messages of a maildir: which files they are, in which order, under which unique ids. */

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
  /**
   * Modification time in milliseconds, as fine as the file system has it: tells a file that was
   * changed in place.
   */
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

/**
 * spec/pop3d.md §2: by time, then by the octets of the name, then new before cur. Any order of ties
 * is qmail's.
 */
export function inMaildropOrder(a: Message, b: Message): number {
  if (a.mtime !== b.mtime) return a.mtime - b.mtime
  if (a.name !== b.name) return a.name < b.name ? -1 : 1
  return a.folder === b.folder ? 0 : a.folder === 'new' ? -1 : 1
}

interface Scan {
  /** In maildrop order: message 1 first. */
  readonly messages: readonly Message[]
  /**
   * A file was left out only because it is of the current second, or of the future: the next scan
   * may find it.
   */
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

/**
 * Seconds by which the clock of a delivering host may be ahead before its messages are reported as
 * left out.
 */
const FUTURE_TOLERANCE = 60

/**
 * A directory file of this size holds a thousand names or so: too many to read while other sessions
 * wait.
 */
const LARGE_DIRECTORY = 65_536

/**
 * Reads new/ and cur/ as spec/pop3d.md §2 has it: regular files whose names do not begin with a
 * dot, older than the second `now` (Unix time). A file with two names of the same base, which an
 * interrupted move leaves, is one message. Long scans are divided, so that no other session of the
 * process waits for them.
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
      // Strictly older: a file of this second may still get neighbours that sort before it
      // (spec/pop3d.md §2).
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

const hashOf = (octets: string): string => createHash('sha256').update(octets, 'latin1').digest('hex')

/**
 * The unique ids of the messages, in their order: the base name where that is a legal unique id,
 * else its SHA-256. Of several messages with the same base name the oldest keeps it, and each of
 * the others gets a hash of base name and time. All of this outlives a rename, so that a change of
 * flags and the move from new/ to cur/ change no id.
 *
 * With `compat` qmail: the base name whatever its length and octets, also where two are alike. Only
 * a line end in a name is
 * hashed, because it would break the reply.
 */
export function uniqueIds(messages: readonly Message[], compat: 'none' | 'qmail'): readonly string[] {
  if (compat === 'qmail') {
    return messages.map(({ name }) => {
      const base = baseNameOf(name)
      return /[\r\n]/.test(base) ? hashOf(base) : base
    })
  }
  const ids = messages.map(({ name }) => {
    const base = baseNameOf(name)
    return isUniqueId(base) ? base : hashOf(base)
  })
  const taken = new Set(ids)
  if (taken.size === ids.length) return ids
  for (const twins of Map.groupBy(ids.keys(), index => ids[index]).values()) {
    const oldestFirst = twins.toSorted((a, b) => byAge(messages[a], messages[b]))
    for (const index of oldestFirst.slice(1)) {
      const message = messages[index]
      if (message === undefined) continue
      const dated = hashOf(`${baseNameOf(message.name)}/${message.mtime}`)
      // Twins of the same second: only the inode tells them apart.
      const id = taken.has(dated) ? hashOf(`${baseNameOf(message.name)}/${message.mtime}/${message.inode}`) : dated
      taken.add(id)
      ids[index] = id
    }
  }
  return ids
}

const byAge = (a: Message | undefined, b: Message | undefined): number =>
  a === undefined || b === undefined ? 0 : a.mtime - b.mtime || a.inode - b.inode
