/**
 * The opening of maildrops, and the cache of their scans: when a scan is valid, and how many
 * messages are kept.
 */
import { accessSync, constants } from 'node:fs'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import type { EncoderPool } from '../encoding/line-encoder.ts'
import { areQuiet, areSame, cleanTmp, type Folders, statFolders } from './folders.ts'
import { Maildrop, type MaildropRules } from './maildrop.ts'
import { scanMaildir } from './scan-maildir.ts'

/** Messages in all cached maildrops of the process, at a few hundred octets each. */
const MAX_MESSAGES = 200_000

/** Milliseconds between two cleanings of tmp/. Files there are removed after 36 hours. */
const CLEAN_TMP_EVERY_MS = 3_600_000

/**
 * The maildrop is missing, or its owner may not enter it. The administrator must create the
 * maildrop or correct its owner.
 */
export class MaildropMissing extends Error {
  override readonly name = 'MaildropMissing'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`no maildrop at ${path}`, { cause })
    this.path = path
  }
}

/** new/ or cur/ is missing or cannot be read. */
export class MaildropUnreadable extends Error {
  override readonly name = 'MaildropUnreadable'
  readonly path: string

  constructor(path: string, cause: unknown) {
    super(`cannot scan maildrop ${path}`, { cause })
    this.path = path
  }
}

interface Entry {
  readonly maildrop: Maildrop
  /** The two directories as the scan read them; undefined if the scan must not be used again. */
  readonly folders: Folders | undefined
  /** The previous scan. It provides known sizes until this scan has its own. */
  former: Maildrop | undefined
}

/**
 * Opens maildrops and caches the scans. A scan is valid while inode and times of new/ and cur/ stay
 * the same, because each delivery, move or removal changes them.
 */
export class MaildropCache {
  readonly #entries = new Map<string, Entry>()
  readonly #scans = new Map<string, Promise<Maildrop>>()
  readonly #tmpCleanedAt = new BoundedMap<string, number>(10_000)
  readonly #rules: MaildropRules
  readonly #encoders: EncoderPool
  readonly #clock: Clock
  readonly #maxMessages: number
  #messages = 0

  constructor(rules: MaildropRules, encoders: EncoderPool, clock: Clock, maxMessages: number = MAX_MESSAGES) {
    this.#rules = rules
    this.#encoders = encoders
    this.#clock = clock
    this.#maxMessages = maxMessages
  }

  /**
   * Opens the maildrop in its present state. `path` names a Maildir, absolute or relative to the
   * current directory.
   * @throws MaildropMissing, MaildropUnreadable
   */
  async open(path: string): Promise<Maildrop> {
    const folders = foldersOf(path)
    const known = this.#recall(path, folders)
    if (known !== undefined) return known
    // Sessions that begin during a scan share the scan, if the directories are still as at its
    // beginning.
    const scanId = `${folders.map(({ dev, ino, mtimeMs, ctimeMs }) => `${dev}.${ino}.${mtimeMs}.${ctimeMs}`).join(' ')} ${path}`
    const running = this.#scans.get(scanId)
    if (running !== undefined) return running
    const scan = this.#scan(path, folders).finally(() => this.#scans.delete(scanId))
    this.#scans.set(scanId, scan)
    return scan
  }

  /**
   * Returns the maildrop without waiting if it is cached; undefined if it must be read. Throws the
   * errors of `open`.
   */
  cached(path: string): Maildrop | undefined {
    return this.#recall(path, foldersOf(path))
  }

  #recall(path: string, folders: Folders): Maildrop | undefined {
    this.#cleanTmp(path)
    const entry = this.#entries.get(path)
    if (entry?.folders === undefined || entry.maildrop.isChanged || !areSame(entry.folders, folders)) return undefined
    this.#remember(path, entry)
    return entry.maildrop
  }

  /**
   * Settles when the sizes of the maildrop are known; undefined if they are known already. A
   * session calls this before its first STAT or LIST, to find files that were changed in place, and
   * later whenever a size is unknown.
   */
  determineSizes(maildrop: Maildrop): Promise<void> | undefined {
    const entry = this.#entries.get(maildrop.path)
    const former = entry?.maildrop === maildrop ? entry.former : entry?.maildrop
    return maildrop.determineSizes(this.#encoders, this.#clock(), former)?.then(() => {
      if (entry?.maildrop === maildrop) entry.former = undefined
    })
  }

  async #scan(path: string, folders: Folders): Promise<Maildrop> {
    const now = this.#clock()
    try {
      const { messages, incomplete, leftOut } = await scanMaildir(path, Math.floor(now / 1000))
      const maildrop = new Maildrop(path, { messages, leftOut, at: now }, this.#rules)
      const before = this.#entries.get(path)
      const former = before?.maildrop.knowsSomeSizes ? before.maildrop : before?.former
      this.#remember(path, { maildrop, folders: areQuiet(folders, now) && !incomplete ? folders : undefined, former })
      return maildrop
    } catch (error) {
      throw new MaildropUnreadable(path, error)
    }
  }

  /** Moves the entry to the end of the order in which entries are dropped. */
  #remember(path: string, entry: Entry): void {
    this.#forget(path)
    this.#entries.set(path, entry)
    this.#messages += entry.maildrop.count
    for (const oldest of this.#entries.keys()) {
      if (this.#messages <= this.#maxMessages || oldest === path) break
      this.#forget(oldest)
    }
  }

  #forget(path: string): void {
    this.#messages -= this.#entries.get(path)?.maildrop.count ?? 0
    this.#entries.delete(path)
  }

  #cleanTmp(path: string): void {
    const now = this.#clock()
    if (now - (this.#tmpCleanedAt.get(path) ?? Number.NEGATIVE_INFINITY) < CLEAN_TMP_EVERY_MS) return
    // A dropped path is cleaned once more than necessary.
    this.#tmpCleanedAt.renew(path, now)
    cleanTmp(path, Math.floor(now / 1000))
  }
}

function foldersOf(path: string): Folders {
  try {
    return statFolders(path)
  } catch (error) {
    throw mayBeEntered(path) ? new MaildropUnreadable(path, error) : new MaildropMissing(path, error)
  }
}

/** True if chdir(2), with which qmail-pop3d begins, would succeed. */
function mayBeEntered(path: string): boolean {
  try {
    accessSync(`${path}/.`, constants.X_OK)
    return true
  } catch {
    return false // The client gets the reply for a missing maildrop.
  }
}
