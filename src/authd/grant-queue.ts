/** The queue between login sources and the grant store, as explained at GrantQueue. */
import type { Clock } from '../base/clock.ts'
import { asError, errorCodeOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { GrantWriter, Login, Outcome } from '../grants/grant-store.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { LoginAnswer, LoginEvent } from '../wire/login-event.ts'
import { CommitTiming } from './commit-timing.ts'
import type { Counters, Source } from './metrics.ts'
import { NewestLogins } from './newest-logins.ts'
import { QUEUE_BOUNDS, type QueueBounds } from './queue/queue-bounds.ts'

/** A login that a source reported. */
export type ReportedLogin = {
  readonly event: LoginEvent
  readonly source: Source
  /** Time of the login in milliseconds, if it is before now: a line that is read late. */
  readonly at?: number
  /** Called once with the answer for the announcer: `committed` only after the commit. */
  readonly answer?: (answer: LoginAnswer) => void
  /** Called once when the login is stored, refused, or replaced by a newer one. */
  readonly settled?: () => void
}

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
/** Logins in one transaction. */
const MAX_BATCH = 1000
/**
 * Addresses whose row another transaction has locked, set aside one by one; more of them mean that
 * the store is down.
 */
const MAX_LOCKED = 100
/** Pause before the addresses that were set aside are tried again, in milliseconds. */
const LOCKED_PAUSE = 1000
/** A login that waited longer than this is stored with its own time, not the database's. */
const OWN_TIME_AFTER = 1000

type Entry = {
  readonly reported: ReportedLogin
  readonly ip: IpAddress
  /** Arrival number. It keeps the order across retries. */
  readonly place: number
  /** Time of arrival by the monotonic clock. */
  readonly arrivedAt: number
  /** The announcer got its answer. */
  answered: boolean
  /** Stored or refused. */
  concluded: boolean
  /** Kept over an outage. */
  queued: boolean
}

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
 * Locks: a commit that waits in vain for a synchronous standby keeps its row locks after its client
 * has disconnected. A batch that meets such a lock is refused as a whole. It is halved until the
 * locked addresses stand alone. `#locked` holds the newest login of each of them; they are tried
 * again apart from the others, which are stored meanwhile.
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
  /** The commits that are under way. */
  readonly #commits = new Set<readonly Entry[]>()
  #taken = 0
  #pumpIsDue = false
  #company: NodeJS.Timeout | undefined
  readonly #timing = new CommitTiming()
  #down = false
  #pause: number
  #retryTimer: NodeJS.Timeout | undefined
  #waitTimer: NodeJS.Timeout | undefined
  #dropped = 0
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
      concluded: false,
      queued: false,
    }
    if (this.#down) {
      this.#keep(entry)
      return
    }
    if (this.#locked.has(entry.ip)) {
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
    clearTimeout(this.#company)
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
      this.#company ??= setTimeout(() => this.#endCompany(), wait)
      return
    }
    clearTimeout(this.#company)
    this.#company = undefined
    this.#pumpIsDue = true
    setImmediate(() => {
      this.#pumpIsDue = false
      this.#pump()
    })
  }

  #waitForOthers(): number {
    return this.#timing.waitForOthers(this.#pending.length, this.#commits.size)
  }

  #endCompany(): void {
    this.#company = undefined
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
    return [...this.#commits].flat()
  }

  #nextBatch(): Entry[] {
    const kept = this.#kept.take(MAX_BATCH)
    return [...kept, ...this.#pending.splice(0, MAX_BATCH - kept.length)]
  }

  /** Commits one batch, then starts the next one. Never rejects. */
  async #commit(batch: readonly Entry[]): Promise<void> {
    this.#commits.add(batch)
    let failure: unknown
    try {
      await this.#store(batch, this.#options.monotonic() + this.#deadline)
    } catch (error) {
      failure = error
    }
    this.#commits.delete(batch)
    if (failure === undefined) this.#up()
    else this.#failed(failure, batch)
    for (const waiter of this.#waiters.splice(0)) waiter()
    clearTimeout(this.#company)
    this.#company = undefined
    if (this.#kept.size > 0 || this.#waitForOthers() === 0) this.#pump()
    else if (this.#pending.length > 0) this.#pumpSoon()
  }

  /**
   * Rejects if the store is unavailable, or if the batch is not stored at `end`. A login that the
   * database will never take gets `refused` alone. A login whose row is locked goes to `#locked`.
   */
  async #store(batch: readonly Entry[], end: number): Promise<void> {
    const started = this.#options.monotonic()
    let outcomes: readonly Outcome[]
    try {
      const signal = AbortSignal.timeout(this.#deadline)
      outcomes = await this.#options.store.record(
        batch.map(entry => this.#login(entry)),
        { signal },
      )
    } catch (error) {
      const isLocked = meetsLock(error)
      if (!neverHelps(error) && !isLocked) throw error
      if (isLocked && (this.#options.monotonic() >= end || this.#locked.isFull)) throw error
      const [first] = batch
      if (batch.length === 1 && first !== undefined && isLocked) {
        this.#options.log.warn('login_locked', { ...describe(first.reported), reason: asError(error) })
        this.#setAside(first)
        return
      }
      if (batch.length === 1 && first !== undefined) {
        this.#options.log.error('login_unstorable', { ...describe(first.reported), reason: asError(error) })
        this.#settle(first, { verdict: 'refused', id: first.reported.event.id, reason: 'unstorable' })
        return
      }
      const half = Math.ceil(batch.length / 2)
      await this.#store(batch.slice(0, half), end)
      await this.#store(batch.slice(half), end)
      return
    }
    if (outcomes.length !== batch.length) throw new Error('the store gave another number of outcomes than logins')
    this.#options.counters.commits += 1
    this.#options.onCommit?.(this.#options.monotonic() - started, batch.length)
    for (const [index, entry] of batch.entries()) {
      const outcome = outcomes[index]
      if (outcome !== undefined) this.#conclude(entry, outcome)
    }
  }

  #conclude(entry: Entry, outcome: Outcome): void {
    const { event } = entry.reported
    if (outcome.verdict === 'refused') {
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

  /** Concludes a login: stored or refused. */
  #settle(entry: Entry, answer: LoginAnswer): void {
    entry.concluded = true
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

  #failed(error: unknown, batch: readonly Entry[]): void {
    this.#options.counters.commitFailures += 1
    const left = batch.filter(entry => !entry.concluded && !this.#locked.includes(entry))
    if (!this.#down) {
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

  /**
   * Keeps the newest login of an address whose row is locked. The login is tried again apart from
   * the others.
   */
  #setAside(entry: Entry): void {
    this.#wait(entry, this.#locked)
    this.#lockedTimer ??= setTimeout(() => this.#tryLocked(), LOCKED_PAUSE)
  }

  #tryLocked(): void {
    this.#lockedTimer = undefined
    if (this.#closed) return
    const batch = this.#locked.take()
    if (this.#down) for (const entry of batch) this.#keep(entry)
    else if (batch.length > 0) void this.#commit(batch)
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

  #login({ reported: { event, at }, arrivedAt, queued }: Entry): Login {
    const age = this.#options.monotonic() - arrivedAt
    if (at === undefined && !queued && age < OWN_TIME_AFTER) return { event, at: null }
    // Counted back from now by a clock that does not step, so that a step of the machine's clock
    // moves no login.
    const own = this.#options.clock() - age
    return { event, at: new Date(at === undefined ? own : Math.min(at, own)) }
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

const describe = ({ event: { id, ip, user, daemon }, source }: ReportedLogin) => ({ id, ip, user, daemon, source })

/**
 * True if the data of a login are invalid (SQLSTATE classes 22, data exception, and 23, integrity
 * constraint violation), so that the database will never take them. Every other error, also a
 * missing table or right, is an outage that an administrator can end.
 */
const neverHelps = (error: unknown): boolean => /^2[23]/.test(errorCodeOf(error) ?? '')

/**
 * Another transaction has locked what this one needs (lock_not_available, query_canceled), so the
 * statement had no effect.
 */
const meetsLock = (error: unknown): boolean => /^(55P03|57014)$/.test(errorCodeOf(error) ?? '')
