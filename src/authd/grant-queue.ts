/** The queue between login sources and the grant store, as explained at GrantQueue. */
import type { Clock } from '../base/clock.ts'
import { asError, messageOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { GrantOutcome, GrantWriter } from '../grants/grant-store.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { LoginAnswer } from '../wire/login-event.ts'
import type { Counters } from './counters.ts'
import { BatchParts, BatchSize, loginsOf, MAX_BATCH } from './queue/batch-parts.ts'
import { CommitTiming } from './queue/commit-timing.ts'
import { describe, type Entry, loginOf, meetsLock, neverHelps, type ReportedLogin } from './queue/entry.ts'
import { NewestLogins } from './queue/newest-logins.ts'
import { QUEUE_BOUNDS, type QueueBounds } from './queue/queue-bounds.ts'

export type GrantQueueOptions = {
  readonly store: Pick<GrantWriter, 'record'>
  readonly log: Log
  readonly counters: Counters
  /** The machine's clock: may step. */
  readonly clock: Clock
  /** A clock that never steps, in milliseconds: measures how long a login has waited. */
  readonly monotonic: Clock
  /** Milliseconds after which an announcer gets `queued`. */
  readonly commitWait: number
  /** Milliseconds that a commit may take before the store counts as unavailable. */
  readonly commitDeadline?: number
  /** First and longest pause between two tries while the store is unavailable, in milliseconds. */
  readonly backOff?: { readonly first: number; readonly longest: number }
  /** Called after each commit with its milliseconds and its number of logins. */
  readonly onCommit?: (milliseconds: number, logins: number) => void
  readonly bounds?: QueueBounds
}

/**
 * Transactions under way at once. One is the rule: the logins that arrive while it waits for the
 * disk go into the next one together. The second is for a transaction that takes long, because it
 * waits for a row lock or for a slow disk.
 */
const MAX_COMMITS = 2
/** Addresses that are locked, or may be; more mean that the store is down. First 64 at a time. */
const MAX_LOCKED = MAX_BATCH
const FIRST_LOCKED = 64
/** Reasons of one outage that are logged. */
const MAX_REASONS = 5
/** Pause before the addresses that were set aside are tried again, in milliseconds. */
const LOCKED_PAUSE_MS = 1000
/**
 * Queue between login sources and the grant store.
 *
 * A login is in exactly one of four places: `#pending` (waiting for the next commit), `#commits`
 * (under way), `#locked` (see below), or `#kept` (the store is unavailable; only the newest login
 * of each address is kept, at most `bounds.kept` addresses). At most two commits run at a time,
 * besides one of `#locked`.
 *
 * Order: logins of one address are stored in order of arrival. A retry sorts by arrival number,
 * because concurrent commits can fail out of order.
 *
 * Answers: an announcer gets one answer. It is `committed` after the commit, `queued` after
 * `commitWait` or when the store is unavailable, and `refused` if the login can never be granted.
 *
 * Locks: a commit that waits in vain for a synchronous standby keeps its row locks, even after its
 * client has disconnected. The store refuses a batch that meets such a lock as a whole, after the
 * lock timeout. The queue halves the batch until each locked address is alone. The larger parts go
 * first, so that most logins are stored after a few refusals. At the deadline the parts that were
 * not searched go to `#locked`, as the locked addresses do. `#locked` keeps the newest login of
 * each address and has its own commits, so that the other logins are stored meanwhile. After a
 * search that did not end in time, such a commit has fewer logins. If `#locked` has no room, the
 * store counts as unavailable.
 */
export class GrantQueue {
  readonly #options: GrantQueueOptions
  readonly #deadline: number
  readonly #bounds: QueueBounds
  readonly #backOff: { readonly first: number; readonly longest: number }
  #pending: Entry[] = []
  /** Logins that wait for the end of an outage. */
  readonly #kept: NewestLogins<Entry>
  /** Logins of addresses whose rows are locked. */
  readonly #locked = new NewestLogins<Entry>(MAX_LOCKED)
  #lockedTimer: NodeJS.Timeout | undefined
  /** The addresses of `#locked` that are tried again now. */
  #lockedUnderWay: ReadonlySet<IpAddress> = new Set()
  readonly #batchSize = new BatchSize(MAX_BATCH)
  readonly #lockedSize = new BatchSize(FIRST_LOCKED)
  /** The commits that are under way, each with its logins that are neither stored nor elsewhere. */
  readonly #commits = new Set<Set<Entry>>()
  #taken = 0
  #pumpIsDue = false
  #joinTimer: NodeJS.Timeout | undefined
  readonly #timing = new CommitTiming()
  #down = false
  #pause: number
  #retryTimer: NodeJS.Timeout | undefined
  #waitTimer: NodeJS.Timeout | undefined
  #dropped = 0
  /** The reasons of this outage that were logged. */
  readonly #reasons = new Set<string>()
  #waiters: (() => void)[] = []
  #draining = false
  #closed = false

  constructor(options: GrantQueueOptions) {
    this.#options = options
    this.#deadline = options.commitDeadline ?? 10_000
    this.#bounds = options.bounds ?? QUEUE_BOUNDS
    this.#kept = new NewestLogins(this.#bounds.kept)
    this.#backOff = options.backOff ?? { first: 1000, longest: 30_000 }
    this.#pause = this.#backOff.first
  }

  /** Logins not yet stored. */
  get length(): number {
    return this.#pending.length + this.#kept.size + this.#locked.size + this.#committing().length
  }

  /** True if the last commit failed. */
  get storeIsDown(): boolean {
    return this.#down
  }

  /**
   * False if sources that can wait should stop reading. During an outage there is room, because
   * only the newest login of each address is kept.
   */
  get hasRoom(): boolean {
    return this.#pending.length < this.#bounds.highWater
  }

  /** Resolves when there is room again. */
  async room(): Promise<void> {
    while (!this.hasRoom) await this.#nextCommit()
  }

  /** Takes a login. Its `answer` and `settled` are called later, or at once. */
  submit(reported: ReportedLogin): void {
    this.#taken += 1
    const now = this.#options.monotonic()
    this.#timing.taken(now)
    const entry: Entry = {
      reported,
      ip: reported.event.ip,
      place: this.#taken,
      arrivedAt: now,
      answered: false,
      queued: false,
    }
    if (this.#down) {
      this.#keep(entry)
      return
    }
    const isLocked = this.#locked.has(entry.ip) || this.#lockedUnderWay.has(entry.ip)
    if (isLocked && this.#locked.hasRoomFor([entry])) {
      this.#setAside(entry)
      return
    }
    this.#pending.push(entry)
    if (this.#pending.length > this.#bounds.pending) this.#keepAllPending()
    this.#watchWaits()
    this.#pumpSoon()
  }

  /** The store is reachable again: retries now instead of waiting for the pause to end. */
  storeIsBack(): void {
    if (this.#down) this.#retry()
  }

  /**
   * Waits until everything is stored: at most `milliseconds` without progress, and at most
   * `longest` in all. Returns the number of logins that are left. Pauses between tries are short
   * meanwhile.
   */
  async drain(milliseconds: number, longest: number = milliseconds): Promise<number> {
    this.#draining = true
    const { monotonic } = this.#options
    const end = monotonic() + longest
    let deadline = monotonic() + milliseconds
    let waiting = this.length
    this.storeIsBack()
    while (this.length > 0) {
      if (this.length < waiting) deadline = monotonic() + milliseconds
      waiting = this.length
      const left = Math.min(deadline, end) - monotonic()
      if (left <= 0) break
      await Promise.race([this.#nextCommit(), new Promise(resolve => setTimeout(resolve, left).unref())])
    }
    return this.length
  }

  /** Stops every timer. Logins that are left are lost. */
  close(): void {
    this.#closed = true
    clearTimeout(this.#retryTimer)
    clearTimeout(this.#lockedTimer)
    clearTimeout(this.#joinTimer)
    clearInterval(this.#waitTimer)
  }

  /**
   * Starts a transaction after everything else of this turn, so that the logins that one peer sends
   * at once, or several peers together, share it; or later, so that others can join.
   */
  #pumpSoon(): void {
    if (this.#pumpIsDue) return
    const wait = this.#waitForOthers()
    if (wait > 0) {
      this.#joinTimer ??= setTimeout(() => this.#commitJoined(), wait)
      return
    }
    clearTimeout(this.#joinTimer)
    this.#joinTimer = undefined
    this.#pumpIsDue = true
    setImmediate(() => {
      this.#pumpIsDue = false
      this.#pump()
    })
  }

  #waitForOthers(): number {
    return this.#timing.waitForOthers(this.#pending.length, this.#commits.size)
  }

  #commitJoined(): void {
    this.#joinTimer = undefined
    this.#pump()
  }

  #pump(): void {
    while (!this.#down && !this.#closed && this.#commits.size < MAX_COMMITS) {
      const batch = this.#nextBatch()
      if (batch.length === 0) return
      void this.#commit(batch)
    }
  }

  #committing(): readonly Entry[] {
    return [...this.#commits].flatMap(left => [...left])
  }

  #nextBatch(): Entry[] {
    const kept = this.#kept.take(this.#batchSize.most)
    return [...kept, ...this.#pending.splice(0, this.#batchSize.most - kept.length)]
  }

  /** Commits one batch, then starts the next one. Never rejects. */
  async #commit(batch: readonly Entry[], size: BatchSize = this.#batchSize): Promise<void> {
    const left = new Set(batch)
    this.#commits.add(left)
    let failure: unknown
    try {
      await this.#store(batch, size)
    } catch (error) {
      failure = error
    }
    this.#commits.delete(left)
    if (failure === undefined) this.#up()
    else this.#failed(failure, [...left])
    for (const waiter of this.#waiters.splice(0)) waiter()
    clearTimeout(this.#joinTimer)
    this.#joinTimer = undefined
    if (this.#kept.size > 0 || this.#waitForOthers() === 0) this.#pump()
    else if (this.#pending.length > 0) this.#pumpSoon()
  }

  /**
   * Rejects if the store is unavailable, or if too many addresses are locked. A login that the
   * database will never take gets `refused` alone. A login whose row is locked, or whose part of
   * the batch met a lock until the deadline, goes to `#locked`.
   */
  async #store(batch: readonly Entry[], size: BatchSize): Promise<void> {
    const end = this.#options.monotonic() + this.#deadline
    const parts = new BatchParts(batch)
    for (let part = parts.next(); part !== undefined; part = parts.next()) {
      const logins = loginsOf(part)
      const refusal = await this.#record(logins)
      if (refusal === undefined) continue
      if (neverHelps(refusal)) {
        if (logins.length > 1) parts.halve(part)
        else for (const entry of logins) this.#refuse(entry, refusal)
        continue
      }
      if (part.length > 1) parts.postpone(part)
      else {
        this.#setAsideOrThrow(logins, refusal)
        const fields = logins.slice(-1).map(({ reported }) => ({ ...describe(reported), reason: refusal }))
        for (const each of fields) this.#options.log.warn('login_locked', each)
      }
      if (this.#options.monotonic() >= end && !parts.isEmpty) {
        size.shrink()
        this.#setAsideOrThrow(parts.takeAll(), refusal)
        return
      }
    }
    size.grow()
  }

  /**
   * Stores the logins in one transaction. Resolves with an error that concerns a few of them, and
   * rejects with every other one.
   */
  async #record(logins: readonly Entry[]): Promise<Error | undefined> {
    const started = this.#options.monotonic()
    let outcomes: readonly GrantOutcome[]
    try {
      const signal = AbortSignal.timeout(this.#deadline)
      outcomes = await this.#options.store.record(
        logins.map(entry => loginOf(entry, this.#options)),
        { signal },
      )
    } catch (error) {
      if (neverHelps(error) || meetsLock(error)) return asError(error)
      throw error
    }
    if (outcomes.length !== logins.length) throw new Error('the store gave another number of outcomes than logins')
    this.#options.counters.commits += 1
    this.#options.onCommit?.(this.#options.monotonic() - started, logins.length)
    for (const [index, entry] of logins.entries()) {
      const outcome = outcomes[index]
      if (outcome !== undefined) this.#conclude(entry, outcome)
    }
    return undefined
  }

  #conclude(entry: Entry, outcome: GrantOutcome): void {
    const { event } = entry.reported
    if (outcome.kind === 'refused') {
      this.#options.log.info('grant_refused', { ...describe(entry.reported), reason: outcome.reason })
      this.#settle(entry, { verdict: 'refused', id: event.id, reason: outcome.reason })
      return
    }
    const fields = { ...describe(entry.reported), until: outcome.until }
    // The line of popup for the login names the end of the grant too.
    if (entry.reported.source === 'socket' && event.daemon === 'popup') this.#options.log.debug('grant_stored', fields)
    else this.#options.log.info('grant_stored', fields)
    this.#settle(entry, { verdict: 'committed', id: event.id, until: outcome.until })
  }

  #refuse(entry: Entry, reason: Error): void {
    this.#options.log.error('login_unstorable', { ...describe(entry.reported), reason })
    this.#settle(entry, { verdict: 'refused', id: entry.reported.event.id, reason: 'unstorable' })
  }

  /** Concludes a login: stored or refused. */
  #settle(entry: Entry, answer: LoginAnswer): void {
    this.#leaveCommit(entry)
    this.#options.counters.countEvent(entry.reported.source, answer.verdict)
    this.#answer(entry, answer)
    entry.reported.settled?.()
  }

  #answer(entry: Entry, answer: LoginAnswer): void {
    if (entry.answered) return
    // authd is about to end: an announcer without an answer sends the login again to the next
    // authd.
    if (this.#draining && answer.verdict === 'queued') return
    entry.answered = true
    entry.reported.answer?.(answer)
  }

  #up(): void {
    this.#pause = this.#backOff.first
    if (!this.#down) return
    this.#down = false
    clearTimeout(this.#retryTimer)
    this.#options.log.info('store_available', { waiting: this.length, dropped: this.#dropped })
    this.#dropped = 0
  }

  #failed(error: unknown, left: readonly Entry[]): void {
    this.#options.counters.commitFailures += 1
    if (!this.#down) this.#reasons.clear()
    if (!this.#reasons.has(messageOf(error)) && this.#reasons.size < MAX_REASONS) {
      this.#reasons.add(messageOf(error))
      this.#options.log.error('store_unavailable', { reason: asError(error), waiting: this.length + left.length })
    }
    this.#down = true
    // Concurrent commits can fail out of order, so sort by arrival.
    const entries = [...left, ...this.#kept.take()].sort((a, b) => a.place - b.place)
    for (const entry of entries) this.#keep(entry)
    this.#keepAllPending()
    if (this.#closed) return
    const pause = this.#draining ? Math.min(this.#pause, 250) : this.#pause
    this.#pause = Math.min(this.#pause * 2, this.#backOff.longest)
    clearTimeout(this.#retryTimer)
    this.#retryTimer = setTimeout(() => this.#retry(), pause)
  }

  /** Sets logins aside; throws if too many addresses would wait. */
  #setAsideOrThrow(logins: readonly Entry[], reason: Error): void {
    if (!this.#locked.hasRoomFor(logins)) throw reason
    for (const entry of logins) this.#setAside(entry)
  }

  /**
   * Keeps the newest login of an address whose row is locked. The login is tried again apart from
   * the others.
   */
  #setAside(entry: Entry): void {
    this.#leaveCommit(entry)
    this.#wait(entry, this.#locked)
    this.#tryLockedLater()
  }

  #tryLockedLater(): void {
    if (this.#lockedUnderWay.size > 0 || this.#locked.size === 0) return
    this.#lockedTimer ??= setTimeout(() => this.#tryLocked(), LOCKED_PAUSE_MS)
  }

  #leaveCommit(entry: Entry): void {
    for (const left of this.#commits) left.delete(entry)
  }

  #tryLocked(): void {
    this.#lockedTimer = undefined
    if (this.#closed) return
    if (this.#down) for (const entry of this.#locked.take()) this.#keep(entry)
    else if (this.#locked.size > 0) {
      const batch = this.#locked.take(this.#lockedSize.most)
      this.#lockedUnderWay = new Set(batch.map(({ ip }) => ip))
      void this.#commit(batch, this.#lockedSize).finally(() => {
        this.#lockedUnderWay = new Set()
        this.#tryLockedLater()
      })
    }
  }

  #retry(): void {
    clearTimeout(this.#retryTimer)
    // A commit that is under way reports the state of the store.
    if (this.#commits.size > 0 || this.#closed) return
    const batch = this.#nextBatch()
    // There is nothing to write: the next login tries the store.
    if (batch.length === 0) this.#down = false
    else void this.#commit(batch)
  }

  #keepAllPending(): void {
    const pending = this.#pending
    this.#pending = []
    for (const entry of pending) this.#keep(entry)
  }

  /** Keeps the login over the outage. */
  #keep(entry: Entry): void {
    if (!this.#wait(entry, this.#kept)) return
    if (this.#dropped === 0)
      this.#options.log.warn('logins_dropped', { kept: this.#bounds.kept, reason: 'too many addresses wait' })
    this.#dropped += 1
  }

  /**
   * Lets a login wait among others, and answers its announcer, which need not wait for it. True if
   * the login of another address was dropped.
   */
  #wait(entry: Entry, others: NewestLogins<Entry>): boolean {
    this.#answer(entry, { verdict: 'queued', id: entry.reported.event.id })
    const { replaced, dropped } = others.add(entry)
    if (replaced !== undefined) this.#forget(replaced, 'replaced')
    if (dropped !== undefined) this.#forget(dropped, 'dropped')
    if (!entry.queued) {
      entry.queued = true
      this.#options.counters.countEvent(entry.reported.source, 'queued')
      this.#options.log.info('login_queued', describe(entry.reported))
    }
    return dropped !== undefined
  }

  #forget(entry: Entry, why: 'replaced' | 'dropped'): void {
    this.#options.counters.countEvent(entry.reported.source, why)
    entry.reported.settled?.()
  }

  /**
   * Answers `queued` to announcers that have waited for `commitWait`. The timer runs only while
   * logins wait.
   */
  #watchWaits(): void {
    this.#waitTimer ??= setInterval(
      () => {
        const now = this.#options.monotonic()
        for (const entry of [...this.#committing(), ...this.#pending]) {
          if (now - entry.arrivedAt >= this.#options.commitWait) {
            this.#answer(entry, { verdict: 'queued', id: entry.reported.event.id })
          }
        }
        if (this.#pending.length > 0 || this.#commits.size > 0) return
        clearInterval(this.#waitTimer)
        this.#waitTimer = undefined
      },
      Math.max(1, this.#options.commitWait / 8),
    )
  }

  #nextCommit(): Promise<void> {
    return new Promise(resolve => this.#waiters.push(resolve))
  }
}
