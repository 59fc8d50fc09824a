import { formatListing, type Listing, type MaildropView } from '../pop3/transaction.ts'
import type { LineEncoder } from './line-endings.ts'
import { baseNameOf } from './maildir-name.ts'
import type { Message } from './message.ts'
import { TimeSlice } from './time-slice.ts'
import { uniqueIds } from './unique-ids.ts'
import { wireOctetsOf } from './wire-size.ts'

const NOTHING_DELETED: ReadonlySet<number> = new Set()

export interface SizeRules {
  /** `wire`: octets as sent (RFC 1939 §11); `file`: octets of the file, as qmail. */
  readonly sizes: 'wire' | 'file'
  /** qmail's CR before CRLF is sent, and counted. */
  readonly keepCr: boolean
}

/**
 * What one scan of a maildir found. It never changes, so sessions share it; what a session deletes is the session's own.
 * Sizes and ready listings are made when first asked for.
 */
export class Maildrop implements MaildropView {
  readonly path: string
  readonly messages: readonly Message[]
  /** How many of the messages were in new/: QUIT has to move them. */
  readonly newCount: number
  readonly #ids: readonly string[]
  readonly #rules: SizeRules
  readonly #ready = new Map<Listing, Buffer>()
  #octets: readonly number[] | undefined
  #sizing: Promise<void> | undefined
  #total = 0

  constructor(path: string, messages: readonly Message[], rules: SizeRules) {
    this.path = path
    this.messages = messages
    this.newCount = messages.reduce((count, { folder }) => count + (folder === 'new' ? 1 : 0), 0)
    this.#ids = uniqueIds(messages)
    this.#rules = rules
    if (rules.sizes === 'file') this.#setOctets(messages.map(({ fileOctets }) => fileOctets))
  }

  get count(): number {
    return this.messages.length
  }

  /** The message with this number, which the protocol table has checked. */
  message(number: number): Message {
    const message = this.messages[number - 1]
    if (message === undefined) throw new RangeError(`no message ${number} among ${this.count}`)
    return message
  }

  uniqueId(number: number): string {
    return this.#ids[number - 1] ?? ''
  }

  octets(number: number): number {
    return this.#octets?.[number - 1] ?? this.message(number).fileOctets
  }

  totalOctets(): number {
    return this.#total
  }

  get sizesKnown(): boolean {
    return this.#octets !== undefined
  }

  /**
   * Finds the size of every message. `former` is an earlier scan of the same maildir: what it knows of a file of the same
   * name, length and time is taken over.
   */
  learnSizes(encoder: LineEncoder, former?: Maildrop): Promise<void> {
    this.#sizing ??= this.#measure(encoder, former?.knownOctets() ?? new Map())
    return this.#sizing
  }

  /** Sizes by file, for a later scan. */
  knownOctets(): ReadonlyMap<string, number> {
    const octets = this.#octets
    if (octets === undefined) return new Map()
    return new Map(this.messages.map((message, index) => [identityOf(message), octets[index] ?? message.fileOctets]))
  }

  /** The whole reply to LIST or UIDL while nothing is deleted. LIST only once the sizes are known. */
  readyListing(of: Listing): Buffer {
    const ready = this.#ready.get(of)
    if (ready !== undefined) return ready
    const made = Buffer.from(formatListing(this, of, NOTHING_DELETED), 'latin1')
    this.#ready.set(of, made)
    return made
  }

  async #measure(encoder: LineEncoder, known: ReadonlyMap<string, number>): Promise<void> {
    const slice = new TimeSlice()
    const buffer = Buffer.allocUnsafeSlow(encoder.maxInput)
    const octets: number[] = []
    for (const message of this.messages) {
      const pause = slice.pause()
      if (pause !== undefined) await pause
      const size = known.size === 0 ? undefined : known.get(identityOf(message))
      octets.push(
        size ?? (await wireOctetsOf(this.path, message, { encoder, buffer, keepCr: this.#rules.keepCr, slice })),
      )
    }
    this.#setOctets(octets)
  }

  #setOctets(octets: readonly number[]): void {
    this.#octets = octets
    this.#total = octets.reduce((sum, size) => sum + size, 0)
  }
}

/** Same base name, length and time: the same octets, also after the move from new/ to cur/. */
const identityOf = ({ name, fileOctets, mtime }: Message): string => `${baseNameOf(name)}/${fileOctets}/${mtime}`
