/** The files of a scan's messages after other programs have renamed or removed them. */
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

/** Result of removing the file of a message. */
export type Removal =
  | { readonly kind: 'removed'; readonly name: string; readonly octets: number }
  /** Another session or program has removed the file. */
  | { readonly kind: 'missing' }
  | { readonly kind: 'failed'; readonly cause: unknown }

/** A file in new/ or cur/. */
interface Place {
  readonly folder: 'new' | 'cur'
  readonly name: string
}

interface Found extends Place {
  readonly status: Stats
}

/** Files of the two folders by base name. */
interface Index {
  readonly places: ReadonlyMap<string, readonly Place[]>
  readonly folders: Folders
  /** True if the status of the folders will show a later change. */
  readonly isQuiet: boolean
  /** Time of the beginning of the reading, by the monotonic clock. */
  readonly madeAt: number
}

/** Number of times that the folders are read, because they may change during the reading. */
const MAX_READINGS = 3

/**
 * Finds the files of one scan's messages after other programs have renamed them.
 *
 * QUIT of another session moves files from new/ to cur/, and IMAP programs rename files to set
 * flags. A rename keeps base name and inode, so a file that has lost the name of the scan is
 * searched by both. If no file of the base name has the inode, and exactly one file has the base
 * name, that file is read, because a program may have rewritten the message. If the scan had
 * several messages of the base name ("twins"), no such file is read, because it may belong to
 * another message.
 *
 * Removal is stricter: a file without the inode must have the name of the scan, or size and time of
 * the message. Other files are never removed.
 *
 * With `compat` qmail a file is opened and removed only under the name of the scan, as in
 * qmail-pop3d. Twins are protected there too.
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

  /** Opens the file of a message: at once under the name of the scan, otherwise after a search. */
  open(message: Message): OpenedMessage | Promise<OpenedMessage> {
    const opened = openMessage(this.#pathOf(message))
    if (this.#compat === 'qmail') return opened
    if (opened.kind === 'open') {
      if (this.#isFileOf(message, { ...message, status: opened.status })) return opened
      closeSync(opened.fd)
    } else if (opened.kind === 'unreadable' && statusOf(this.#pathOf(message))?.ino === message.inode) {
      return opened
    }
    return this.#openFound(message, opened)
  }

  /**
   * Removes the file of a deleted message. `since` is the time at which the session entered UPDATE,
   * by the monotonic clock. The folders are searched once for each UPDATE.
   */
  remove(message: Message, since: number): Removal | Promise<Removal> {
    const path = this.#pathOf(message)
    let status: Stats | undefined
    try {
      status = lstatSync(path, { throwIfNoEntry: false })
    } catch (cause) {
      return { kind: 'failed', cause }
    }
    // The place of the file has a directory now, or a link that an archive program has put there.
    if (status !== undefined && !status.isFile()) return removeFile(path, message.name, message.fileOctets)
    const isOwn = status !== undefined && this.#isFileOf(message, { ...message, status })
    if (this.#compat === 'qmail') {
      return status !== undefined && !isOwn && this.hasTwin(message)
        ? { kind: 'failed', cause: new Error('another message has its name now') }
        : removeFile(path, message.name, status?.size ?? message.fileOctets)
    }
    if (status !== undefined && isOwn && status.nlink === 1) return removeFile(path, message.name, status.size)
    return this.#removeFound(message, since)
  }

  /**
   * Moves a message of new/ to cur/ at QUIT. A message that has moved already stays, and so does
   * one whose new name is taken.
   */
  moveToCur(message: Message): void {
    const source = this.#pathOf(message)
    const target = filePath(this.#maildir, 'cur', seenName(message.name, this.#compat))
    try {
      if (this.hasTwin(message)) {
        // Another program may have given the name to the file of a twin. If the client has deleted
        // the twin, the index of this UPDATE must still have every name of that file.
        const status = statusOf(source)
        if (status === undefined || !this.#isFileOf(message, { ...message, status })) return
        // A program that changes the flags of another message may take the target's name at this
        // instant. link(2) then fails, where rename(2) would remove a message that no client has
        // deleted.
        linkSync(source, target)
        unlinkSync(source)
      } else if (lstatSync(target, { throwIfNoEntry: false }) === undefined) {
        renameSync(source, target)
      }
    } catch {
      // Another client has moved or removed the message. Its present place is the correct one
      // (spec/pop3d.md §5).
    }
  }

  /** True if the scan had other messages of the same base name. */
  hasTwin({ name }: Message): boolean {
    this.#twins ??= basesOfSeveral(this.#messages)
    return this.#twins.has(baseNameOf(name))
  }

  /**
   * True if a file with the message's base name certainly belongs to the message. Inodes are
   * reused, so size and time must be the same too. A file with the name of the scan that was
   * changed in place belongs to the message, unless the message has a twin.
   */
  #isFileOf(message: Message, { folder, name, status }: Found): boolean {
    if (status.ino !== message.inode || !status.isFile()) return false
    if (isUnchanged(message, status)) return true
    return isNamed(message, { folder, name }) && !this.hasTwin(message)
  }

  async #openFound(message: Message, opened: OpenedMessage): Promise<OpenedMessage> {
    // An outdated index has too few files, but a file with the right inode is correct in it too.
    const known = this.#index === undefined ? undefined : this.#sureIn(message, this.#index)[0]
    if (known !== undefined) return openMessage(this.#pathOf(known))
    const index = await this.#currentIndex()
    if (index === undefined) return { kind: 'missing' }
    const found = this.#filesOf(message, index)
    const [first] = this.#sureIn(message, index)
    if (first !== undefined) return openMessage(this.#pathOf(first))
    const likely = found.length === 1 ? found : found.filter(file => isNamed(message, file))
    const [only] = this.hasTwin(message) ? [] : likely
    if (only !== undefined) return openMessage(this.#pathOf(only))
    return opened.kind === 'unreadable' ? opened : { kind: 'missing' }
  }

  async #removeFound(message: Message, since: number): Promise<Removal> {
    const index = await this.#currentIndex(since)
    if (index === undefined) return { kind: 'missing' }
    const found = this.#filesOf(message, index)
    const sure = this.#sureIn(message, index)
    if (sure.length === 0 && found.length > 0) {
      if (this.hasTwin(message)) {
        if (found.every(file => this.#isOfOther(message, file))) return { kind: 'missing' }
        return {
          kind: 'failed',
          cause: new Error('several messages have its base name, and no file is surely its own'),
        }
      }
      if (found.length > 1 || !found.every(file => isLikely(message, file))) {
        return { kind: 'failed', cause: new Error('another file has its base name now') }
      }
    }
    // Several names of one file are one message, because an interrupted move leaves two names.
    let removal: Removal = { kind: 'missing' }
    for (const place of sure.length > 0 ? sure : found) {
      const next = removeFile(this.#pathOf(place), place.name, place.status.size)
      if (removal.kind !== 'failed' && next.kind !== 'missing') removal = next
    }
    return removal
  }

  /** True if a file certainly belongs to another message of the scan. */
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

  /**
   * Returns the files of the folders now, or at a time after `since`; undefined if the folders are
   * missing.
   */
  async #currentIndex(since = Number.POSITIVE_INFINITY): Promise<Index | undefined> {
    try {
      const known = this.#index
      if (known !== undefined) {
        if (known.madeAt >= since) return known
        if (known.isQuiet && areSame(known.folders, statFolders(this.#maildir))) return known
      }
      for (let reading = 1; ; reading += 1) {
        const index = await this.#read()
        // A file that is renamed while a large folder is read may be missing from the index.
        if (reading === MAX_READINGS || areSame(index.folders, statFolders(this.#maildir))) {
          this.#index = index
          return index
        }
      }
    } catch {
      // A folder was removed, with every file in it.
      return undefined
    }
  }

  async #read(): Promise<Index> {
    const madeAt = monotonicClock()
    const folders = statFolders(this.#maildir)
    const isQuiet = areQuiet(folders, systemClock())
    const places = new Map<string, Place[]>()
    const slice = new TimeSlice()
    // Files move from new/ to cur/, so new/ is read first and no file is missed.
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
 * True if the only file with a message's base name may be used as a rewritten or copied message.
 */
const isLikely = (message: Message, { status, ...place }: Found): boolean =>
  isNamed(message, place) || (status.size === message.fileOctets && status.mtimeMs === message.mtimeMs)

/** True if the file has the name of the scan. */
const isNamed = (message: Message, { folder, name }: Place): boolean =>
  folder === message.folder && name === message.name

function removeFile(path: string | Buffer, name: string, octets: number): Removal {
  try {
    unlinkSync(path)
    return { kind: 'removed', name, octets }
  } catch (cause) {
    return errorCodeOf(cause) === 'ENOENT' ? { kind: 'missing' } : { kind: 'failed', cause }
  }
}
