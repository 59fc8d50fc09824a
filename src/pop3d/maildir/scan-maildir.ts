/** Scan of a maildir: which files are messages, their order and their unique-ids. */
import { createHash } from 'node:crypto'
import { readdirSync, type Stats, statSync } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { baseNameOf, isUniqueId } from '../../wire/message-name.ts'
import { TimeSlice } from '../time-slice.ts'
import { filePath, statusOf } from './folders.ts'

/** One message of a maildrop, as scanned. */
export interface Message {
  /** Folder of the message at the scan. */
  readonly folder: 'new' | 'cur'
  /** File name in the folder, one character per octet (latin1). */
  readonly name: string
  /** Size of the file in octets. */
  readonly fileOctets: number
  /** Modification time in whole seconds. It decides the order of the maildrop. */
  readonly mtime: number
  /**
   * Modification time in milliseconds, with the resolution of the file system. It shows that a file
   * was changed in place.
   */
  readonly mtimeMs: number
  /** Inode, which a rename keeps. It distinguishes messages of the same base name. */
  readonly inode: number
}

/** Makes the message from the status of its file. */
export const messageOfFile = (folder: 'new' | 'cur', name: string, status: Stats): Message => ({
  folder,
  name,
  fileOctets: status.size,
  mtime: Math.floor(status.mtimeMs / 1000),
  mtimeMs: status.mtimeMs,
  inode: status.ino,
})

/** True if the file is the same and unchanged since the message was read. */
export const isUnchanged = (message: Message, status: Stats): boolean =>
  status.ino === message.inode && status.size === message.fileOctets && status.mtimeMs === message.mtimeMs

/**
 * Compares by time, then by the octets of the name, then new before cur (spec/pop3d.md §2). qmail
 * leaves the order of ties undefined.
 */
export function inMaildropOrder(a: Message, b: Message): number {
  if (a.mtime !== b.mtime) return a.mtime - b.mtime
  if (a.name !== b.name) return a.name < b.name ? -1 : 1
  return a.folder === b.folder ? 0 : a.folder === 'new' ? -1 : 1
}

interface Scan {
  /** In the order of the maildrop: message 1 first. */
  readonly messages: readonly Message[]
  /**
   * True if a file was left out only because its time is the current second or in the future. The
   * next scan may list it.
   */
  readonly incomplete: boolean
  readonly leftOut: LeftOut
}

/** Files that resemble messages and are not listed. */
export interface LeftOut {
  readonly symbolicLinks: number
  /** Files whose time is more than FUTURE_TOLERANCE_S ahead. */
  readonly future: number
  /** Path of one of the files, e.g. `new/NAME`; undefined without such files. */
  readonly example: string | undefined
}

/**
 * Seconds by which the clock of a delivering host may be ahead before its messages are reported as
 * left out.
 */
const FUTURE_TOLERANCE_S = 60

/**
 * Size of a directory file in octets that corresponds to about a thousand names. Such a directory
 * is not read synchronously, because other sessions would wait.
 */
const LARGE_DIRECTORY = 65_536

/**
 * Reads new/ and cur/ (spec/pop3d.md §2): regular files whose names do not begin with a dot, older
 * than the second `now` (Unix time). A file with two names of the same base, which an interrupted
 * move leaves, is one message. A long scan is divided into slices, so that no other session of the
 * process waits for it.
 * @throws the system's error if a folder cannot be read.
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
      const message = messageOfFile(folder, name, status)
      // Only older files, because a file of this second may still get neighbours that sort before
      // it (spec/pop3d.md §2).
      if (message.mtime >= now) {
        incomplete = true
        if (message.mtime <= now + FUTURE_TOLERANCE_S) continue
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
  // Sorting ten thousand messages takes a whole slice, and the caller's work on them takes another.
  await slice.pause()
  messages.sort(inMaildropOrder)
  await slice.pause()
  return { messages, incomplete, leftOut: { symbolicLinks, future, example } }
}

/**
 * Returns the names in a directory, one character per octet. A small directory is read
 * synchronously.
 */
export function namesIn(path: string): readonly string[] | Promise<readonly string[]> {
  return statSync(path).size > LARGE_DIRECTORY
    ? readdir(path, { encoding: 'latin1' })
    : readdirSync(path, { encoding: 'latin1' })
}

const hashOf = (octets: string): string => createHash('sha256').update(octets, 'latin1').digest('hex')

/**
 * Returns the unique-ids of the messages in their order. The unique-id is the base name if that is
 * a legal unique-id, otherwise its SHA-256. Of several messages with the same base name the oldest
 * keeps the base name, and each of the others gets a hash of base name and time. A rename does not
 * change any of these values, so a change of flags and the move from new/ to cur/ keep the
 * unique-id.
 *
 * With `compat` qmail the unique-id is the base name at any length and with any octets, even if two
 * are the same. Only a base name with a line end is hashed, because a line end would break the
 * reply.
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
      // Messages with the same base name and second differ only in the inode.
      const id = taken.has(dated) ? hashOf(`${baseNameOf(message.name)}/${message.mtime}/${message.inode}`) : dated
      taken.add(id)
      ids[index] = id
    }
  }
  return ids
}

const byAge = (a: Message | undefined, b: Message | undefined): number =>
  a === undefined || b === undefined ? 0 : a.mtime - b.mtime || a.inode - b.inode
