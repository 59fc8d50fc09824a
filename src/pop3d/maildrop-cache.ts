import { accessSync, constants, type Stats, statSync } from 'node:fs'
import type { Clock } from '../daemon/clock.ts'
import { cleanTmp } from './clean-tmp.ts'
import type { LineEncoder } from './line-endings.ts'
import { Maildrop, type SizeRules } from './maildrop.ts'
import { MaildropMissing, MaildropUnreadable } from './maildrop-errors.ts'
import { scanMaildir } from './scan-maildir.ts'

/** Messages remembered over all maildrops of the process; a few hundred octets each. */
const MAX_MESSAGES = 200_000

/** Milliseconds for which a directory must have been quiet: its time stamp is too coarse to tell two quick changes. */
const QUIET_TIME = 2_000

/** Milliseconds between two cleanings of tmp/: what is swept away is 36 hours old. */
const CLEAN_TMP_EVERY = 3_600_000

interface Entry {
  readonly maildrop: Maildrop
  /** The two directories as the scan saw them; undefined if it may not be used again. */
  readonly folders: Folders | undefined
  /** The scan before, for the sizes it knew, until this one knows its own. */
  former: Maildrop | undefined
}

/**
 * Opens maildrops, and remembers what it found for as long as the inodes and the times of new/ and cur/ stay the same:
 * whatever is delivered, moved or removed changes them.
 */
export class MaildropCache {
  readonly #entries = new Map<string, Entry>()
  readonly #scans = new Map<string, Promise<Maildrop>>()
  readonly #tmpCleanedAt = new Map<string, number>()
  readonly #rules: SizeRules
  readonly #encoder: LineEncoder
  readonly #clock: Clock
  #messages = 0

  constructor(rules: SizeRules, encoder: LineEncoder, clock: Clock) {
    this.#rules = rules
    this.#encoder = encoder
    this.#clock = clock
  }

  /**
   * The maildrop as it is now. `path` names a Maildir, absolute or from the current directory.
   * @throws MaildropMissing, MaildropUnreadable
   */
  async open(path: string): Promise<Maildrop> {
    const folders = foldersOf(path)
    const known = this.#recall(path, folders)
    if (known !== undefined) return known
    // Sessions that begin during a scan share it, if the directories are as they were when it began.
    const scanId = `${folders.map(({ dev, ino, mtimeMs, ctimeMs }) => `${dev}.${ino}.${mtimeMs}.${ctimeMs}`).join(' ')} ${path}`
    const running = this.#scans.get(scanId)
    if (running !== undefined) return running
    const scan = this.#scan(path, folders).finally(() => this.#scans.delete(scanId))
    this.#scans.set(scanId, scan)
    return scan
  }

  /** What `open` would answer, at once; undefined if it has to be read. Throws what `open` does. */
  remembered(path: string): Maildrop | undefined {
    return this.#recall(path, foldersOf(path))
  }

  #recall(path: string, folders: Folders): Maildrop | undefined {
    this.#cleanTmp(path)
    const entry = this.#entries.get(path)
    if (entry?.folders === undefined || !areSame(entry.folders, folders)) return undefined
    this.#remember(path, entry)
    return entry.maildrop
  }

  /** Fulfilled when the sizes of the maildrop are known. */
  async learnSizes(maildrop: Maildrop): Promise<void> {
    const entry = this.#entries.get(maildrop.path)
    await maildrop.learnSizes(this.#encoder, entry?.maildrop === maildrop ? entry.former : entry?.maildrop)
    if (entry?.maildrop === maildrop) entry.former = undefined
  }

  async #scan(path: string, folders: Folders): Promise<Maildrop> {
    const now = this.#clock()
    try {
      const { messages, incomplete } = await scanMaildir(path, Math.floor(now / 1000))
      const maildrop = new Maildrop(path, messages, this.#rules)
      const isQuiet = folders.every(({ mtimeMs }) => now - mtimeMs > QUIET_TIME)
      const before = this.#entries.get(path)
      const former = before?.maildrop.sizesKnown ? before.maildrop : before?.former
      this.#remember(path, { maildrop, folders: isQuiet && !incomplete ? folders : undefined, former })
      return maildrop
    } catch (error) {
      throw new MaildropUnreadable(path, error)
    }
  }

  /** Puts the entry last in the row of those that are forgotten first. */
  #remember(path: string, entry: Entry): void {
    this.#forget(path)
    this.#entries.set(path, entry)
    this.#messages += entry.maildrop.count
    for (const oldest of this.#entries.keys()) {
      if (this.#messages <= MAX_MESSAGES || oldest === path) break
      this.#forget(oldest)
    }
  }

  #forget(path: string): void {
    this.#messages -= this.#entries.get(path)?.maildrop.count ?? 0
    this.#entries.delete(path)
  }

  #cleanTmp(path: string): void {
    const now = this.#clock()
    if (now - (this.#tmpCleanedAt.get(path) ?? Number.NEGATIVE_INFINITY) < CLEAN_TMP_EVERY) return
    // What is forgotten here is only cleaned once more than needed.
    if (this.#tmpCleanedAt.size >= 10_000) this.#tmpCleanedAt.clear()
    this.#tmpCleanedAt.set(path, now)
    cleanTmp(path, Math.floor(now / 1000))
  }
}

/** The status of new/ and of cur/. */
type Folders = readonly [Stats, Stats]

function foldersOf(path: string): Folders {
  try {
    return [statSync(`${path}/new`), statSync(`${path}/cur`)]
  } catch (error) {
    throw mayBeEntered(path) ? new MaildropUnreadable(path, error) : new MaildropMissing(path, error)
  }
}

/** No file came, went or changed its name. Times are doubles, fine to a quarter of a microsecond: finer than any that QUIET_TIME leaves open. */
const areSame = (then: Folders, now: Folders): boolean => isSame(then[0], now[0]) && isSame(then[1], now[1])

const isSame = (then: Stats, now: Stats): boolean =>
  then.mtimeMs === now.mtimeMs && then.ctimeMs === now.ctimeMs && then.ino === now.ino && then.dev === now.dev

/** Whether chdir(2), with which qmail-pop3d begins, would succeed. */
function mayBeEntered(path: string): boolean {
  try {
    accessSync(`${path}/.`, constants.X_OK)
    return true
  } catch {
    return false // missing, no directory, or not for us: the client is told, and the caller has the cause
  }
}
