import { closeSync, linkSync, lstatSync, renameSync, type Stats, unlinkSync } from 'node:fs'
import { monotonicClock, systemClock } from '../../base/clock.ts'
import { errorCodeOf } from '../../base/errors.ts'
import { baseNameOf } from '../../wire/message-name.ts'
import { TimeSlice } from '../time-slice.ts'
import {
  areQuiet,
  areSame,
  type Folders,
  filePath,
  type OpenedMessage,
  openMessage,
  seenName,
  statFolders,
  statusOf,
} from './folders.ts'
import { isUnchanged, type Message, namesIn } from './scan-maildir.ts'

/** What became of the file of a message that was to be removed. */
export type Removal =
  | { readonly type: 'removed'; readonly name: string; readonly octets: number }
  /** Another session or program removed it. */
  | { readonly type: 'gone' }
  | { readonly type: 'failed'; readonly cause: unknown }

/** A file in new/ or cur/. */
interface Place {
  readonly folder: 'new' | 'cur'
  readonly name: string
}

interface Found extends Place {
  readonly status: Stats
}

/** Files by base name, as the two folders had them. */
interface Index {
  readonly places: ReadonlyMap<string, readonly Place[]>
  readonly folders: Folders
  /** A change of the folders since then shows in their status. */
  readonly isQuiet: boolean
  /** When it was begun, by the monotonic clock. */
  readonly madeAt: number
}

/** Times that the folders are read again because they changed meanwhile. */
const MAX_READINGS = 3

/**
 * The files of one scan's messages, wherever they are by now.
 *
 * Another session's QUIT moves files from new/ to cur/, and an IMAP program renames them to set
 * flags. A rename keeps base name and inode, so a file that is not under the name of the scan is
 * looked for by both. Without a file of that inode, the only file of that base name is read,
 * because a program may have rewritten the message; but not where the scan had several messages of
 * that base name ("twins"), because the file may be that of another message. For removal more is
 * asked: such a file must have the name of the scan, or size and time of the message. No other file
 * is ever removed.
 *
 * With `compat` qmail a file is opened and removed under the name of the scan alone, as qmail-pop3d
 * does. A twin is protected there too.
 */
export class MessageFiles {
  readonly #maildir: string
  readonly #messages: readonly Message[]
  readonly #compat: 'none' | 'qmail'
  #twins: ReadonlySet<string> | undefined
  #index: Index | undefined

  constructor(maildir: string, messages: readonly Message[], compat: 'none' | 'qmail') {
    this.#maildir = maildir
    this.#messages = messages
    this.#compat = compat
  }

  /** Opens the file of a message: at once under the name of the scan, else after a search. */
  open(message: Message): OpenedMessage | Promise<OpenedMessage> {
    const opened = openMessage(this.#pathOf(message))
    if (this.#compat === 'qmail') return opened
    if (opened.type === 'open') {
      if (this.#isFileOf(message, { ...message, status: opened.status })) return opened
      closeSync(opened.fd)
    } else if (opened.type === 'unreadable' && statusOf(this.#pathOf(message))?.ino === message.inode) {
      return opened
    }
    return this.#openFound(message, opened)
  }

  /**
   * Removes the file of a message that was marked as deleted. `since`, by the monotonic clock, is
   * when the session entered
   * UPDATE: for one session the folders are searched once.
   */
  remove(message: Message, since: number): Removal | Promise<Removal> {
    const path = this.#pathOf(message)
    let status: Stats | undefined
    try {
      status = lstatSync(path, { throwIfNoEntry: false })
    } catch (cause) {
      return { type: 'failed', cause }
    }
    // In the file's place there is a directory now, or a link to where an archive has it.
    if (status !== undefined && !status.isFile()) return removeFile(path, message.name, message.fileOctets)
    const isOwn = status !== undefined && this.#isFileOf(message, { ...message, status })
    if (this.#compat === 'qmail') {
      return status !== undefined && !isOwn && this.hasTwin(message)
        ? { type: 'failed', cause: new Error('another message has its name now') }
        : removeFile(path, message.name, status?.size ?? message.fileOctets)
    }
    if (status !== undefined && isOwn && status.nlink === 1) return removeFile(path, message.name, status.size)
    return this.#removeFound(message, since)
  }

  /**
   * QUIT: moves a message of new/ to cur/, unless it is elsewhere by now, or a file of the new name
   * exists.
   */
  moveToCur(message: Message): void {
    const source = this.#pathOf(message)
    const target = filePath(this.#maildir, 'cur', seenName(message.name, this.#compat))
    try {
      if (this.hasTwin(message)) {
        // A program that changes the flags of the other message may take the target's name at this
        // instant: link(2) then
        // fails, where rename(2) would remove a message that nobody deleted.
        linkSync(source, target)
        unlinkSync(source)
      } else if (lstatSync(target, { throwIfNoEntry: false }) === undefined) {
        renameSync(source, target)
      }
    } catch {
      // Another client moved or removed it: the message is where that client wanted it
      // (spec/pop3d.md §5).
    }
  }

  /** Whether the scan had other messages of the same base name. */
  hasTwin({ name }: Message): boolean {
    this.#twins ??= basesOfSeveral(this.#messages)
    return this.#twins.has(baseNameOf(name))
  }

  /**
   * Whether a file of the message's base name is surely the message's. Inodes are reused, so size
   * and time must be the same too; but a file that was changed in place, and has the name of the
   * scan, is the message's unless there is a twin.
   */
  #isFileOf(message: Message, { folder, name, status }: Found): boolean {
    if (status.ino !== message.inode || !status.isFile()) return false
    if (isUnchanged(message, status)) return true
    return isNamed(message, { folder, name }) && !this.hasTwin(message)
  }

  async #openFound(message: Message, opened: OpenedMessage): Promise<OpenedMessage> {
    // An index that is out of date has too few files, but a file of the right inode is right all
    // the same.
    const known = this.#index === undefined ? undefined : this.#sureIn(message, this.#index)[0]
    if (known !== undefined) return openMessage(this.#pathOf(known))
    const index = await this.#currentIndex()
    if (index === undefined) return { type: 'gone' }
    const found = this.#filesOf(message, index)
    const [first] = this.#sureIn(message, index)
    if (first !== undefined) return openMessage(this.#pathOf(first))
    const likely = found.length === 1 ? found : found.filter(file => isNamed(message, file))
    const [only] = this.hasTwin(message) ? [] : likely
    if (only !== undefined) return openMessage(this.#pathOf(only))
    return opened.type === 'unreadable' ? opened : { type: 'gone' }
  }

  async #removeFound(message: Message, since: number): Promise<Removal> {
    const index = await this.#currentIndex(since)
    if (index === undefined) return { type: 'gone' }
    const found = this.#filesOf(message, index)
    const sure = this.#sureIn(message, index)
    if (sure.length === 0 && found.length > 0) {
      if (this.hasTwin(message)) {
        if (found.every(file => this.#isOfOther(message, file))) return { type: 'gone' }
        return {
          type: 'failed',
          cause: new Error('several messages have its base name, and no file is surely its own'),
        }
      }
      if (found.length > 1 || !found.every(file => isLikely(message, file))) {
        return { type: 'failed', cause: new Error('another file has its base name now') }
      }
    }
    // Several names of one file are one message: an interrupted move leaves two.
    let removal: Removal = { type: 'gone' }
    for (const place of sure.length > 0 ? sure : found) {
      const next = removeFile(this.#pathOf(place), place.name, place.status.size)
      if (removal.type !== 'failed' && next.type !== 'gone') removal = next
    }
    return removal
  }

  /** Whether a file is surely that of another message of the scan. */
  #isOfOther(message: Message, file: Found): boolean {
    return this.#messages.some(other => other !== message && this.#isFileOf(other, file))
  }

  #sureIn(message: Message, index: Index): readonly Found[] {
    return this.#filesOf(message, index).filter(file => this.#isFileOf(message, file))
  }

  #filesOf({ name }: Message, index: Index): readonly Found[] {
    return (index.places.get(baseNameOf(name)) ?? []).flatMap(place => {
      const status = statusOf(this.#pathOf(place))
      return status?.isFile() ? [{ ...place, status }] : []
    })
  }

  /** What the folders hold now, or held at some time after `since`; undefined if they are gone. */
  async #currentIndex(since = Number.POSITIVE_INFINITY): Promise<Index | undefined> {
    try {
      const known = this.#index
      if (known !== undefined) {
        if (known.madeAt >= since) return known
        if (known.isQuiet && areSame(known.folders, statFolders(this.#maildir))) return known
      }
      for (let reading = 1; ; reading += 1) {
        const index = await this.#read()
        // A name that changes while a large folder is read may be missing.
        if (reading === MAX_READINGS || areSame(index.folders, statFolders(this.#maildir))) {
          this.#index = index
          return index
        }
      }
    } catch {
      // A folder is gone, and every file in it.
      return undefined
    }
  }

  async #read(): Promise<Index> {
    const madeAt = monotonicClock()
    const folders = statFolders(this.#maildir)
    const isQuiet = areQuiet(folders, systemClock())
    const places = new Map<string, Place[]>()
    const slice = new TimeSlice()
    // In the order in which files move.
    for (const folder of ['new', 'cur'] as const) {
      for (const name of await namesIn(`${this.#maildir}/${folder}`)) {
        if (name.startsWith('.')) continue
        const others = places.get(baseNameOf(name))
        if (others === undefined) places.set(baseNameOf(name), [{ folder, name }])
        else others.push({ folder, name })
        const pause = slice.pause()
        if (pause !== undefined) await pause
      }
    }
    return { places, folders, isQuiet, madeAt }
  }

  #pathOf({ folder, name }: Place): string | Buffer {
    return filePath(this.#maildir, folder, name)
  }
}

function basesOfSeveral(messages: readonly Message[]): ReadonlySet<string> {
  const seen = new Set<string>()
  const several = new Set<string>()
  for (const { name } of messages) {
    const base = baseNameOf(name)
    if (seen.has(base)) several.add(base)
    else seen.add(base)
  }
  return several
}

/**
 * Whether the only file of a message's base name may be taken for a rewritten or copied message.
 */
const isLikely = (message: Message, { status, ...place }: Found): boolean =>
  isNamed(message, place) || (status.size === message.fileOctets && status.mtimeMs === message.mtimeMs)

/** Whether the file has the name of the scan. */
const isNamed = (message: Message, { folder, name }: Place): boolean =>
  folder === message.folder && name === message.name

function removeFile(path: string | Buffer, name: string, octets: number): Removal {
  try {
    unlinkSync(path)
    return { type: 'removed', name, octets }
  } catch (cause) {
    return errorCodeOf(cause) === 'ENOENT' ? { type: 'gone' } : { type: 'failed', cause }
  }
}
