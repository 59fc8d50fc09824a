/** The messages of one maildir, with their sizes, unique-ids and listings. */
import { closeSync, type Stats } from 'node:fs'
import { asError } from '../../base/errors.ts'
import { formatListing, type Listing, type MaildropView } from '../../pop3/transaction.ts'
import { baseNameOf } from '../../wire/message-name.ts'
import type { EncoderPool, LineEncoder } from '../encoding/line-encoder.ts'
import { wireOctetsOf } from '../encoding/send-message.ts'
import { TimeSlice } from '../time-slice.ts'
import { filePath, statusOf } from './folders.ts'
import { MessageFiles } from './message-files.ts'
import type { LeftOut } from './scan-maildir.ts'
import { isUnchanged, type Message, messageOfFile, uniqueIds } from './scan-maildir.ts'

const NOTHING_DELETED: ReadonlySet<number> = new Set()

/**
 * Milliseconds for each message between two checks of all files for changes in place. A check takes
 * some microseconds for each message, so checks take less than 1 % of the time, even if sessions
 * begin continuously.
 */
const CHECK_INTERVAL_MS = 2

export interface MaildropRules {
  /** `wire`: octets as sent (RFC 1939 §11). `file`: octets of the file, as in qmail. */
  readonly sizes: 'wire' | 'file'
  readonly compat: 'none' | 'qmail'
}

/** Result of a scan, and the time when it began (Unix milliseconds). */
export interface ScanResult {
  readonly messages: readonly Message[]
  readonly leftOut: LeftOut
  readonly at: number
}

/**
 * The messages of one scan of a maildir. Numbers, order and unique-ids never change, so sessions
 * share the object; the marks of deleted messages belong to the session. Sizes and listings are
 * made at first use. The size of a message whose file was changed in place is determined again.
 */
export class Maildrop implements MaildropView {
  readonly path: string
  readonly leftOut: LeftOut
  /** The present places of the files. */
  readonly files: MessageFiles
  /** Number of messages that were in new/. QUIT must move them. */
  readonly newCount: number
  readonly #messages: Message[]
  readonly #ids: readonly string[]
  readonly #rules: MaildropRules
  readonly #ready = new Map<Listing, Buffer>()
  /**
   * Size of each message in octets; undefined if it must be determined, for the first time or
   * again.
   */
  readonly #octets: (number | undefined)[]
  /**
   * Messages whose files could not be read, with the cause; undefined for a file that was removed
   * after the scan. The size of the file replaces the size of such a message and is not passed to
   * later scans.
   */
  readonly #unreadable = new Map<number, Error | undefined>()
  #unknown: number
  #total: number | undefined
  #checkedAt: number
  #determining = Promise.resolve()
  #changed = false

  constructor(path: string, { messages, leftOut, at }: ScanResult, rules: MaildropRules) {
    this.path = path
    this.leftOut = leftOut
    this.#messages = [...messages]
    this.files = new MessageFiles(path, this.#messages, rules.compat)
    this.newCount = messages.reduce((count, { folder }) => count + (folder === 'new' ? 1 : 0), 0)
    this.#ids = uniqueIds(messages, rules.compat)
    this.#rules = rules
    this.#octets = messages.map(({ fileOctets }) => (rules.sizes === 'file' ? fileOctets : undefined))
    this.#unknown = rules.sizes === 'file' ? 0 : messages.length
    this.#checkedAt = at
  }

  get count(): number {
    return this.#messages.length
  }

  get messages(): readonly Message[] {
    return this.#messages
  }

  /** Returns the message with this number. The protocol table has checked the number. */
  message(number: number): Message {
    const message = this.#messages[number - 1]
    if (message === undefined) throw new RangeError(`no message ${number} among ${this.count}`)
    return message
  }

  uniqueId(number: number): string {
    return this.#ids[number - 1] ?? ''
  }

  octets(number: number): number {
    return this.#octets[number - 1] ?? this.message(number).fileOctets
  }

  totalOctets(): number {
    this.#total ??= this.#messages.reduce((sum, _, index) => sum + this.octets(index + 1), 0)
    return this.#total
  }

  get sizesKnown(): boolean {
    return this.#unknown === 0
  }

  /**
   * True if a file was changed in place since the scan. The next session needs a new scan, because
   * the order may have changed.
   */
  get isChanged(): boolean {
    return this.#changed
  }

  get knowsSomeSizes(): boolean {
    return this.#unknown < this.count
  }

  /**
   * Messages whose size could not be determined, by number, with the cause; undefined for a file
   * that was removed after the scan.
   */
  get unreadable(): ReadonlyMap<number, Error | undefined> {
    return this.#unreadable
  }

  /**
   * Determines the unknown sizes; undefined if there is nothing to do. `former` is an earlier scan
   * of the same maildir: the sizes of files with the same name, inode, length and time are copied
   * from it. Files are checked for changes in place if the last check before `now` was long enough
   * ago.
   */
  determineSizes(encoders: EncoderPool, now: number, former?: Maildrop): Promise<void> | undefined {
    const isDue = Math.abs(now - this.#checkedAt) > this.count * CHECK_INTERVAL_MS
    if (this.sizesKnown && this.#unreadable.size === 0 && !isDue) return undefined
    if (isDue) this.#checkedAt = now
    const determine = (): Promise<void> => this.#determine(encoders, isDue, former)
    // An attempt that failed for want of memory does not fail the attempts of later sessions.
    this.#determining = this.#determining.then(determine, determine)
    return this.#determining
  }

  /** Records that the file of a message was replaced or changed since the scan. */
  noteChange(number: number, status: Stats): void {
    const { folder, name, mtime } = this.message(number)
    // The order of the maildrop must not change during a session, so the time of the scan is kept.
    this.#messages[number - 1] = { ...messageOfFile(folder, name, status), mtime }
    this.#changed = true
    this.#setOctets(number, this.#rules.sizes === 'file' ? status.size : undefined)
  }

  /** Returns the known sizes by file, for a later scan. */
  knownOctets(): ReadonlyMap<string, number> {
    const known = new Map<string, number>()
    for (const [index, message] of this.#messages.entries()) {
      const octets = this.#octets[index]
      if (octets !== undefined && !this.#unreadable.has(index + 1)) known.set(identityOf(message), octets)
    }
    return known
  }

  /**
   * Returns the reply to LIST or UIDL while no message is deleted. For LIST the sizes must be
   * known.
   */
  readyListing(of: Listing): Buffer {
    const ready = this.#ready.get(of)
    if (ready !== undefined) return ready
    const made = Buffer.from(formatListing(this, of, NOTHING_DELETED), 'latin1')
    this.#ready.set(of, made)
    return made
  }

  async #determine(encoders: EncoderPool, isDue: boolean, former: Maildrop | undefined): Promise<void> {
    const slice = new TimeSlice()
    if (isDue) await this.#lookForChanges(slice)
    if (this.#rules.sizes === 'file' || (this.sizesKnown && this.#unreadable.size === 0)) return
    const encoder = encoders.take()
    try {
      await this.#measureAll(encoder, slice, former?.knownOctets())
    } finally {
      encoder.release()
    }
  }

  async #measureAll(
    encoder: LineEncoder,
    slice: TimeSlice,
    known: ReadonlyMap<string, number> | undefined,
  ): Promise<void> {
    for (let number = 1; number <= this.count; number += 1) {
      if (this.#octets[number - 1] !== undefined && !this.#unreadable.has(number)) continue
      const pause = slice.pause()
      if (pause !== undefined) await pause
      const size = known?.get(identityOf(this.message(number)))
      if (size === undefined) await this.#measure(number, encoder, slice)
      else this.#setOctets(number, size)
    }
  }

  async #lookForChanges(slice: TimeSlice): Promise<void> {
    for (let number = 1; number <= this.count; number += 1) {
      const pause = slice.pause()
      if (pause !== undefined) await pause
      const message = this.message(number)
      const status = statusOf(filePath(this.path, message.folder, message.name))
      // A file that was only renamed has the same octets. The name of the scan may belong to
      // another message now.
      if (status === undefined || !status.isFile() || isUnchanged(message, status)) continue
      if (!this.files.hasTwin(message)) this.noteChange(number, status)
    }
  }

  async #measure(number: number, encoder: LineEncoder, slice: TimeSlice): Promise<void> {
    const opened = await this.files.open(this.message(number))
    if (opened.kind !== 'open') {
      this.#standIn(number, opened.kind === 'missing' ? undefined : opened.cause)
      return
    }
    try {
      if (!isUnchanged(this.message(number), opened.status)) this.noteChange(number, opened.status)
      const keepCr = this.#rules.compat === 'qmail'
      this.#setOctets(number, await wireOctetsOf(opened.fd, { encoder, keepCr, slice }))
    } catch (error) {
      this.#standIn(number, asError(error))
    } finally {
      closeSync(opened.fd)
    }
  }

  #standIn(number: number, cause: Error | undefined): void {
    this.#setOctets(number, this.message(number).fileOctets)
    this.#unreadable.set(number, cause)
  }

  #setOctets(number: number, octets: number | undefined): void {
    const before = this.#octets[number - 1]
    this.#unreadable.delete(number)
    if (before === octets) return
    this.#unknown += (octets === undefined ? 1 : 0) - (before === undefined ? 1 : 0)
    this.#octets[number - 1] = octets
    this.#total = undefined
    this.#ready.delete('LIST')
  }
}

/**
 * Files with the same base name, inode, length and time have the same octets, even after a rename.
 */
const identityOf = ({ name, inode, fileOctets, mtimeMs }: Message): string =>
  `${baseNameOf(name)}/${inode}/${fileOctets}/${mtimeMs}`
