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
import { isUnchanged, type Message, messageOf, uniqueIds } from './scan-maildir.ts'

const NOTHING_DELETED: ReadonlySet<number> = new Set()

/**
 * Milliseconds per message between two looks at all files for changes in place. One look takes some
 * microseconds a message,
 * so that looking takes less than 1 % of the time, however often sessions begin.
 */
const CHECK_INTERVAL = 2

export interface MaildropRules {
  /** `wire`: octets as sent (RFC 1939 §11); `file`: octets of the file, as qmail. */
  readonly sizes: 'wire' | 'file'
  readonly compat: 'none' | 'qmail'
}

/** What a scan found, and when it began (Unix milliseconds). */
export interface ScanResult {
  readonly messages: readonly Message[]
  readonly leftOut: LeftOut
  readonly at: number
}

/**
 * What one scan of a maildir found. Numbers, order and unique ids never change, so sessions share
 * it; the messages that a
 * session deletes are the session's own. Sizes and ready listings are made when first asked for.
 * The size of a message whose
 * file was changed in place is learnt again.
 */
export class Maildrop implements MaildropView {
  readonly path: string
  readonly leftOut: LeftOut
  /** Where the messages are now. */
  readonly files: MessageFiles
  /** How many of the messages were in new/: QUIT has to move them. */
  readonly newCount: number
  readonly #messages: Message[]
  readonly #ids: readonly string[]
  readonly #rules: MaildropRules
  readonly #ready = new Map<Listing, Buffer>()
  /** The size of each message; undefined where it has to be learnt, at first or again. */
  readonly #octets: (number | undefined)[]
  /**
   * Messages whose files could not be read, and why; undefined for one that was removed meanwhile.
   * The file's size stands in
   * for theirs, and is not handed on.
   */
  readonly #unreadable = new Map<number, Error | undefined>()
  #unknown: number
  #total: number | undefined
  #checkedAt: number
  #learning = Promise.resolve()
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

  /** The message with this number, which the protocol table has checked. */
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
   * A file was changed in place since the scan: the next session needs a new one, because the order
   * may be another.
   */
  get isChanged(): boolean {
    return this.#changed
  }

  get knowsSomeSizes(): boolean {
    return this.#unknown < this.count
  }

  /**
   * Messages whose size could not be learnt, by number, with the cause; undefined for one that was
   * removed meanwhile.
   */
  get unreadable(): ReadonlyMap<number, Error | undefined> {
    return this.#unreadable
  }

  /**
   * Finds the sizes that are not known; undefined if there is nothing to do. `former` is an earlier
   * scan of the same maildir:
   * its size of a file of the same name, inode, length and time is taken over. Files are looked at
   * for changes in place if
   * that was last done some time before `now`.
   */
  learnSizes(encoders: EncoderPool, now: number, former?: Maildrop): Promise<void> | undefined {
    const isDue = Math.abs(now - this.#checkedAt) > this.count * CHECK_INTERVAL
    if (this.sizesKnown && this.#unreadable.size === 0 && !isDue) return undefined
    if (isDue) this.#checkedAt = now
    this.#learning = this.#learning.then(() => this.#learn(encoders, isDue, former))
    return this.#learning
  }

  /** The file of a message is another than at the scan, or was changed. */
  noteChange(number: number, status: Stats): void {
    const { folder, name, mtime } = this.message(number)
    // The order of the maildrop stays what it was in this session.
    this.#messages[number - 1] = { ...messageOf(folder, name, status), mtime }
    this.#changed = true
    this.#setOctets(number, this.#rules.sizes === 'file' ? status.size : undefined)
  }

  /** Sizes by file, for a later scan. */
  knownOctets(): ReadonlyMap<string, number> {
    const known = new Map<string, number>()
    for (const [index, message] of this.#messages.entries()) {
      const octets = this.#octets[index]
      if (octets !== undefined && !this.#unreadable.has(index + 1)) known.set(identityOf(message), octets)
    }
    return known
  }

  /**
   * The whole reply to LIST or UIDL while nothing is deleted. LIST only once the sizes are known.
   */
  readyListing(of: Listing): Buffer {
    const ready = this.#ready.get(of)
    if (ready !== undefined) return ready
    const made = Buffer.from(formatListing(this, of, NOTHING_DELETED), 'latin1')
    this.#ready.set(of, made)
    return made
  }

  async #learn(encoders: EncoderPool, isDue: boolean, former: Maildrop | undefined): Promise<void> {
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
      // A file that was only renamed has the octets that it had. Under the name of the scan there
      // may be another message now.
      if (status === undefined || !status.isFile() || isUnchanged(message, status)) continue
      if (!this.files.hasTwin(message)) this.noteChange(number, status)
    }
  }

  async #measure(number: number, encoder: LineEncoder, slice: TimeSlice): Promise<void> {
    const opened = await this.files.open(this.message(number))
    if (opened.type !== 'open') {
      this.#standIn(number, opened.type === 'gone' ? undefined : opened.cause)
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

/** The same base name, inode, length and time: the same octets, also after a rename. */
const identityOf = ({ name, inode, fileOctets, mtimeMs }: Message): string =>
  `${baseNameOf(name)}/${inode}/${fileOctets}/${mtimeMs}`
