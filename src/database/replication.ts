/** Whether a commit is on two servers, and whether a server is still the primary. */
import * as v from 'valibot'
import { messageOf } from '../base/errors.ts'
import { DatabaseUnavailable, OutcomeUnknown } from './errors.ts'
import type { Statement } from './statement.ts'

/**
 * The settings that decide the wait of a commit: synchronous_commit and synchronous_standby_names.
 */
type Replication = { readonly commit: string; readonly standbys: string }

export const REPLICATION: Statement<Replication> = {
  text: `SELECT current_setting('synchronous_commit') AS commit, current_setting('synchronous_standby_names') AS standbys`,
  row: v.object({ commit: v.string(), standbys: v.string() }),
}

/** Settings of synchronous_commit with which a commit waits for the standby's disk. */
const DURABLE_COMMITS: ReadonlySet<string> = new Set(['on', 'remote_apply'])

/** The reason why a failover can lose a commit under these settings; undefined if it cannot. */
export function whyNotReplicated({ commit, standbys }: Replication): string | undefined {
  if (!DURABLE_COMMITS.has(commit)) return `synchronous_commit is ${commit}`
  return standbys.trim() === '' ? 'synchronous_standby_names is empty' : undefined
}

/** @throws OutcomeUnknown if a commit under these settings may be on one server alone. */
export function requireReplicated(replication: Replication | undefined): void {
  const reason = replication === undefined ? 'its settings are unknown' : whyNotReplicated(replication)
  if (reason !== undefined) throw new OutcomeUnknown(`committed on the primary alone: ${reason}`)
}

/**
 * Proof that a server is still the primary of its cluster.
 *
 * A primary that was cut off, or whose cluster manager hangs, continues to answer while another
 * server has been promoted. Only a synchronous standby can be promoted, and a promoted standby
 * stops answering its old primary. So an answer of every synchronous standby to this primary proves
 * that no other primary existed at that moment.
 *
 * The age of an answer is measured without trusting a clock of the cluster. `reply_time` is written
 * by the standby's clock, which may be minutes off. The watch estimates the difference between that
 * clock and its own monotonic clock by the freshest answers that it has seen, and computes the age
 * from it. A value that never changes proves nothing, and neither does a first one. If the
 * standby's clock is set back, its answers look old, and the relay stays closed, until WINDOW newer
 * answers have been seen.
 */

/**
 * One standby as the primary reports it; `replied` in milliseconds by the standby's clock, `pid` of
 * the walsender.
 */
export type StandbyReply = { readonly name: string; readonly pid: number; readonly replied: number }

/** The standbys of a primary; `names`: its setting synchronous_standby_names. */
export type StandbyReplies = { readonly names: string; readonly standbys: readonly StandbyReply[] }

export const STANDBY_REPLIES: Statement<StandbyReplies> = {
  text: `SELECT current_setting('synchronous_standby_names') AS names,
  coalesce((SELECT jsonb_agg(jsonb_build_object('name', r.name, 'pid', r.pid,
    'replied', extract(epoch FROM r.reply_time) * 1000)) FROM standby_replies() AS r WHERE r.reply_time IS NOT NULL), '[]') AS standbys`,
  row: v.object({
    names: v.string(),
    standbys: v.array(v.object({ name: v.string(), pid: v.number(), replied: v.number() })),
  }),
}

/**
 * The standbys of synchronous_standby_names, in lower case: `n2`, `"n2","n3"`, `2 (n2, n3)`, `ANY 1
 * (n2, n3)`. Empty if there are none, or if any standby suffices (`*`).
 */
export function standbyNames(setting: string): readonly string[] {
  const inner = /^\s*(?:(?:any|first)\s+)?\d+\s*\((?<list>.*)\)\s*$/is.exec(setting)?.groups?.['list'] ?? setting
  const words = [...inner.matchAll(/"(?<quoted>(?:[^"]|"")*)"|(?<bare>[^\s,"]+)/g)]
  const names = words.map(({ groups }) =>
    (groups?.['quoted']?.replaceAll('""', '"') ?? groups?.['bare'] ?? '').toLowerCase(),
  )
  return names.includes('*') ? [] : names
}

/** Newer answers of one standby after which an older estimate of its clock is dropped. */
const WINDOW = 30

type Track = { readonly pid: number; replied: number; changes: number; readonly offsets: number[] }

/**
 * Ages of the standbys' last answers. Pure: the time is an argument, in milliseconds of a monotonic
 * clock.
 */
export class StandbyAges {
  #tracks = new Map<string, Track>()

  observe({ names, standbys }: StandbyReplies, now: number): void {
    const tracks = new Map<string, Track>()
    for (const name of standbyNames(names)) {
      // Two walsenders of one name: while a standby reconnects. The newer counts.
      const reply = standbys.filter(each => each.name.toLowerCase() === name).sort((a, b) => b.replied - a.replied)[0]
      const before = this.#tracks.get(name)
      if (reply === undefined) tracks.set(name, { pid: 0, replied: 0, changes: 0, offsets: [] })
      else if (before === undefined || before.pid !== reply.pid) {
        tracks.set(name, { pid: reply.pid, replied: reply.replied, changes: 0, offsets: [reply.replied - now] })
      } else {
        if (before.replied !== reply.replied) {
          before.replied = reply.replied
          before.changes += 1
          before.offsets.push(reply.replied - now)
          if (before.offsets.length > WINDOW) before.offsets.shift()
        }
        tracks.set(name, before)
      }
    }
    this.#tracks = tracks
  }

  /**
   * The age of the oldest last answer; infinite if a standby has none that proves anything, or
   * there is no standby.
   */
  age(now: number): number {
    let oldest = this.#tracks.size === 0 ? Number.POSITIVE_INFINITY : 0
    for (const { replied, changes, offsets } of this.#tracks.values()) {
      oldest = Math.max(oldest, changes === 0 ? Number.POSITIVE_INFINITY : now - (replied - Math.max(...offsets)))
    }
    return oldest
  }
}

/** Longest time between two queries for the standbys' answers. */
const LONGEST_INTERVAL_MS = 1000
/** The first proof needs two answers of the standby, and either may be late. */
const QUERIES_WITHIN_LIMIT = 6

/** Time between the end of a query for the standbys' answers and the next query. */
const queryIntervalMs = (limitMs: number): number => Math.min(LONGEST_INTERVAL_MS, limitMs / QUERIES_WITHIN_LIMIT)

export type StandbyWatchOptions = {
  readonly limitMs: number
  readonly host: string
  readonly query: (statement: Statement<StandbyReplies>, signal: AbortSignal) => Promise<readonly StandbyReplies[]>
  /** Called after each query whose answer proves nothing. */
  readonly silent: () => void
}

/**
 * Queries a primary again and again for the answers of its standbys, from its construction until
 * `stop`.
 */
export class StandbyWatch {
  readonly #options: StandbyWatchOptions
  readonly #ages = new StandbyAges()
  readonly #began = performance.now()
  #next: NodeJS.Timeout | undefined
  #queried: PromiseWithResolvers<void> = Promise.withResolvers()
  #failure = 'its synchronous standby does not answer'
  #stopped = false

  constructor(options: StandbyWatchOptions) {
    this.#options = options
    void this.#query()
  }

  /**
   * Returns the time of the proof by the monotonic clock: until then no other primary existed.
   * Throws DatabaseUnavailable unless every synchronous standby has answered this primary within
   * the limit.
   */
  assertProven(): number {
    const now = performance.now()
    const age = this.#ages.age(now)
    if (age <= this.#options.limitMs) return now - age
    throw new DatabaseUnavailable(`${this.#options.host} may not be the primary any more: ${this.#failure}`)
  }

  /**
   * Waits for the first proof, at most the limit from the beginning of the watch; then as
   * assertProven.
   */
  async proven(): Promise<number> {
    while (!this.#isProven() && !this.#stopped && performance.now() - this.#began < this.#options.limitMs) {
      await this.#queried.promise
    }
    return this.assertProven()
  }

  stop(): void {
    this.#stopped = true
    clearTimeout(this.#next)
    this.#queried.resolve()
  }

  #isProven(): boolean {
    return this.#ages.age(performance.now()) <= this.#options.limitMs
  }

  async #query(): Promise<void> {
    const { limitMs, query, silent } = this.#options
    try {
      const [replies] = await query(STANDBY_REPLIES, AbortSignal.timeout(limitMs))
      if (replies !== undefined) this.#ages.observe(replies, performance.now())
      const names = standbyNames(replies?.names ?? '').join(', ')
      this.#failure =
        names === '' ? 'it has no synchronous standby' : `its synchronous standby ${names} does not answer`
    } catch (error) {
      this.#failure = `it does not show the answers of its standbys: ${messageOf(error)}`
    }
    if (this.#stopped) return
    const queried = this.#queried
    this.#queried = Promise.withResolvers()
    queried.resolve()
    if (!this.#isProven()) silent()
    this.#next = setTimeout(() => void this.#query(), queryIntervalMs(limitMs)).unref()
  }
}
