/**
 * The database for the rest of the program: statements at the current primary, with deadlines.
 *
 * Promise. A statement is sent at most once, to a server that accepted writes when it was found.
 * Its promise is fulfilled with the server's answer, or rejected with one of three errors.
 * StatementRefused: the server answered with an error. DatabaseUnavailable: nothing was done.
 * OutcomeUnknown: the statement was sent, and may have been done. (v.ValiError: the rows do not
 * fit; the statement was done.) This file repeats no statement, because only the caller knows
 * whether it may run twice.
 *
 * States. `connecting` until the end of the first round, then `up` with a primary, or `down`
 * without one. The primary is lost in five cases: it takes no new connection; a statement breaks
 * the connection; a connection breaks that no statement uses; a deadline passes, and the server has
 * sent nothing since the statement began; in a cluster, another host is the primary of a later
 * timeline. Then its connections are closed, and a round begins at once with the next host. So a
 * failover is always visible as `down`, and then `up`.
 *
 * Rounds. A round tries each host once (find-primary.ts); one round runs at a time. A statement
 * without a primary waits for the round, and fails with its error. After a round without a primary
 * the next one begins after 0.2 s, later after up to 5 s. A new statement begins it earlier, but
 * not within 0.2 s of the end of the last round; until then it fails with the last error.
 *
 * Deadlines. One limit covers the wait for a primary, the wait for a connection, and every
 * statement of a transaction with its commit. The limit is the caller's signal, at most
 * `statementTimeoutMs` and 1 s, so that the server's own time limit comes first. Before the
 * statement is sent, the deadline gives DatabaseUnavailable, and afterwards OutcomeUnknown. The
 * connection is then closed, because the answer may still come.
 *
 * Unsure commits, in a cluster. A durable statement counts only after the wait for a standby's
 * disk. The outcome is unknown if the deadline passes, if the server reports a cancelled wait, or
 * if the settings of the session require no wait. A commit that waits for a standby in vain keeps
 * its locks and its server process. So after a deadline the host is `unsure` in its timeline: each
 * further durable statement first reads whether a standby streams, and is not sent without one. A
 * durable statement that succeeds ends this. Otherwise retries would fill the server with commits
 * that wait.
 *
 * Proofs, in a cluster. The answer to a `proven` statement counts only if every synchronous standby
 * has answered this primary within `standbyAgeMs`, before the statement and after it. Only such a
 * standby can be promoted, so no other primary existed meanwhile (replication.ts).
 */
import { messageOf } from '../base/errors.ts'
import { DEFAULT_STATEMENT_TIMEOUT_MS } from './connect.ts'
import { deadlineOf, raced } from './deadline.ts'
import {
  type ConnectionRefusal,
  ConnectionsBusy,
  DatabaseUnavailable,
  failureOf,
  OutcomeUnknown,
  refusalOf,
} from './errors.ts'
import { type Primary, PrimarySearch } from './find-primary.ts'
import { REPLICATION, requireReplicated, STANDBY_REPLIES, StandbyWatch } from './replication.ts'
import type { LentConnection, ServerConnections, ServerOptions } from './server-connections.ts'
import { type RawResult, type Result, type RunQuery, runStatement, type Statement, type Value } from './statement.ts'

export type DatabaseOptions = ServerOptions

/**
 * `connecting`: not yet found. `up`: the primary is known; `pooled`: a connection pooler answers
 * for it; `synchronousCommit`: the setting of role, database and server. `down`: searched again and
 * again, with back-off.
 */
export type DatabaseState =
  | { readonly state: 'connecting' }
  | {
      readonly state: 'up'
      readonly host: string
      readonly pooled: boolean
      readonly synchronousCommit: string
    }
  | { readonly state: 'down'; readonly reason: string; readonly refusal: ConnectionRefusal | undefined }

/**
 * `signal`: the deadline. Passing it rejects at once, with OutcomeUnknown if the statement was
 * under way. In a cluster (ConnectionOptions.cluster) besides:
 *
 * `proven`: the answer counts only if the synchronous standby has answered this primary within
 * `standbyAgeMs`; otherwise DatabaseUnavailable.
 *
 * `onProof`: called before the answer to a `proven` statement, with the time of the standby's
 * answer by the monotonic clock (monotonicClock). It may be `standbyAgeMs` before the answer to the
 * statement. Not called without a limit of the age.
 *
 * `durable`: the statement counts only if the commit waited for a standby's disk; otherwise
 * OutcomeUnknown. A commit that waits for a standby keeps its locks and its server process until
 * the wait ends, also after its client has disconnected. So, after a statement whose deadline has
 * passed, no further durable one is sent to this primary before a standby streams from it
 * (DatabaseUnavailable).
 */
export type RunOptions = {
  readonly signal?: AbortSignal | undefined
  readonly proven?: boolean
  readonly onProof?: ((provenAt: number) => void) | undefined
  readonly durable?: boolean
}

export interface DatabaseSession {
  /**
   * @throws StatementRefused, OutcomeUnknown, DatabaseUnavailable; v.ValiError if the rows do not
   * fit their schema.
   */
  query<Row>(statement: Statement<Row>, values?: readonly Value[], options?: RunOptions): Promise<Result<Row>>
  /** Several statements in one text without parameters, for migrations. */
  script(text: string, options?: RunOptions): Promise<void>
}

export interface Database extends DatabaseSession {
  /**
   * Commits if `work` resolves, else rolls back. The signal covers everything, the commit included.
   */
  transaction<T>(work: (session: DatabaseSession) => Promise<T>, options?: RunOptions): Promise<T>
  state(): DatabaseState
  /** Calls a listener at each later change; returns the function that ends it. */
  onStateChange(listener: (state: DatabaseState) => void): () => void
  /** Waits for statements under way, then closes every connection. */
  close(): Promise<void>
}

/**
 * Connects to the primary among the hosts (the one that takes writes), in the background and at
 * once.
 *
 * The connection follows when another host becomes the primary. While there is no primary, it tries
 * all hosts in rounds, with growing pauses. A statement waits for the round under way and fails
 * with DatabaseUnavailable if the round finds no primary.
 */
export function openDatabase(options: DatabaseOptions): Database {
  if (options.hosts.length === 0) throw new TypeError('openDatabase needs at least one host')
  return new PrimaryDatabase(options)
}

const FIRST_PAUSE_MS = 100
const LONGEST_PAUSE_MS = 5000
/** A statement may shorten the pause between two rounds, but not below this time. */
const LEAST_PAUSE_MS = 200

class PrimaryDatabase implements Database {
  readonly #options: DatabaseOptions
  readonly #listeners = new Set<(state: DatabaseState) => void>()
  readonly #closing = new AbortController()
  readonly #searches: PrimarySearch
  #state: DatabaseState = { state: 'connecting' }
  #primary: Primary | undefined
  #round: Promise<Primary> | undefined
  #roundEnded = Number.NEGATIVE_INFINITY
  #lastFailure = new DatabaseUnavailable('not tried yet')
  /** The host to begin the next round with. */
  #next = 0
  #retry: NodeJS.Timeout | undefined
  #pause = FIRST_PAUSE_MS
  /** Connections that are being closed. */
  readonly #ending = new Set<Promise<void>>()
  /**
   * Hosts, with their timeline, where a deadline passed and no durable statement succeeded since.
   * The deadline may drop the Primary, and the search finds the same server again.
   */
  readonly #unsure = new Map<string, number>()
  #lookingAround = false

  constructor(options: DatabaseOptions) {
    this.#options = options
    this.#searches = new PrimarySearch({
      options,
      signal: this.#closing.signal,
      broke: (connections, reason) => {
        if (this.#primary?.connections === connections) this.#lost(this.#primary, reason)
      },
      end: connections => this.#endConnections(connections),
    })
    // The state has the error, and each waiting statement receives it.
    this.#search().catch(() => undefined)
  }

  state(): DatabaseState {
    return this.#state
  }

  onStateChange(listener: (state: DatabaseState) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  query<Row>(statement: Statement<Row>, values: readonly Value[] = [], options: RunOptions = {}): Promise<Result<Row>> {
    return this.#withClient(options, run => runStatement(run, statement, values))
  }

  script(text: string, options: RunOptions = {}): Promise<void> {
    return this.#withClient(options, async run => {
      await run({ text })
    })
  }

  transaction<T>(work: (session: DatabaseSession) => Promise<T>, options: RunOptions = {}): Promise<T> {
    return this.#withClient(options, async run => {
      await run({ text: 'BEGIN' })
      try {
        const result = await work({
          query: (statement, values = []) => runStatement(run, statement, values),
          script: async text => {
            await run({ text })
          },
        })
        await run({ text: 'COMMIT' })
        return result
      } catch (error) {
        // A connection that cannot roll back is unusable, and #withClient closes it.
        await run({ text: 'ROLLBACK' }).catch(() => undefined)
        throw error
      }
    })
  }

  async close(): Promise<void> {
    this.#closing.abort()
    clearTimeout(this.#retry)
    await this.#round?.catch(() => undefined) // no statement waits for the round
    const primary = this.#primary
    this.#primary = undefined
    if (primary !== undefined) this.#end(primary)
    await Promise.all(this.#ending)
  }

  /**
   * Lends a connection of the primary. After the deadline, any error that is not the server's own
   * answer, or a cancelled wait for the synchronous standby, the connection is closed and not lent
   * again.
   */
  async #withClient<T>(
    { signal: outer, proven = false, onProof, durable = false }: RunOptions,
    work: (run: RunQuery) => Promise<T>,
  ): Promise<T> {
    const deadline = deadlineOf(outer, (this.#options.statementTimeoutMs ?? DEFAULT_STATEMENT_TIMEOUT_MS) + 1000)
    const started = performance.now()
    let primary: Primary
    let connection: LentConnection
    try {
      if (deadline.signal.aborted) throw deadline.signal.reason
      // A primary that was lost in this turn is not used: its connections have ended, and nothing
      // would stop a new watch over its standbys.
      do primary = await raced(deadline.signal, this.#primary ?? this.#search())
      while (primary !== this.#primary)
      if (proven) await raced(deadline.signal, this.#watchOf(primary)?.proven())
      connection = await raced(deadline.signal, this.#connect(primary), late => late.release(false))
    } catch (error) {
      deadline.clear()
      if (deadline.signal.aborted) throw new DatabaseUnavailable('no connection within the deadline', { cause: error })
      throw error
    }
    let mustClose = false
    const run: RunQuery = async config => {
      if (mustClose) throw new OutcomeUnknown(`connection to ${primary.host} is closed`)
      try {
        const result = await raced<RawResult>(deadline.signal, connection.run(config))
        primary.lastAnswer = performance.now()
        const cancelled = connection.cancelledWait()
        if (cancelled !== undefined) {
          mustClose = true
          throw new OutcomeUnknown(`committed on ${primary.host} alone, perhaps not on a standby: ${cancelled}`)
        }
        return result
      } catch (error) {
        if (error instanceof OutcomeUnknown) throw error
        if (deadline.signal.aborted) {
          mustClose = true
          this.#unsure.set(primary.host, primary.timeline)
          // A commit that waits for a standby in vain looks like this, and so does an old primary.
          this.#lookAround(primary)
          // The server has sent no answer since this query began: it is unreachable or stuck, and
          // another server may be the primary now.
          if (primary.lastAnswer < started) this.#lost(primary, 'no answer within the deadline')
          throw new OutcomeUnknown('the deadline passed under a statement', { cause: error })
        }
        const failure = failureOf(error, primary.host)
        mustClose ||= failure.serverLost
        if (failure.serverLost) this.#lost(primary, failure.error.message)
        throw failure.error
      }
    }
    try {
      const isDurable = durable && this.#options.cluster !== undefined
      if (isDurable && this.#unsure.get(primary.host) === primary.timeline) {
        const [replies] = (await runStatement(run, STANDBY_REPLIES, [])).rows
        if (replies?.standbys.length === 0) {
          throw new DatabaseUnavailable(`no synchronous standby streams from ${primary.host}`)
        }
      }
      const result = await work(run)
      if (isDurable) {
        requireReplicated((await runStatement(run, REPLICATION, [])).rows[0])
        this.#unsure.delete(primary.host)
      }
      // The proof is younger than the answer: no standby has been promoted before it.
      const provenAt = proven ? primary.watch?.assertProven() : undefined
      if (provenAt !== undefined) onProof?.(provenAt)
      return result
    } finally {
      deadline.clear()
      connection.release(mustClose)
    }
  }

  /** The watch over the standbys of a primary; undefined if no proof is needed. */
  #watchOf(primary: Primary): StandbyWatch | undefined {
    const limitMs = this.#options.cluster?.standbyAgeMs ?? 0
    if (limitMs === 0) return undefined
    primary.watch ??= new StandbyWatch({
      limitMs,
      host: primary.host,
      query: async (statement, signal) => {
        const connection = await raced(signal, this.#connect(primary), late => late.release(false))
        let isUnusable = true
        try {
          const { rows } = await raced(signal, runStatement(connection.run, statement))
          isUnusable = false
          return rows
        } catch (error) {
          // No statement reaches the server while nothing is proven, so the watch has to find a
          // server that was restarted or lost.
          if (!signal.aborted && failureOf(error, primary.host).serverLost) this.#lost(primary, messageOf(error))
          throw error
        } finally {
          connection.release(isUnusable)
        }
      },
      silent: () => this.#lookAround(primary),
    })
    return primary.watch
  }

  /**
   * Searches a later primary among the other hosts, because the known one may have been replaced
   * without noticing it. One search runs at a time.
   */
  #lookAround(primary: Primary): void {
    if (this.#options.cluster === undefined || this.#options.hosts.length < 2) return
    if (this.#lookingAround || this.#primary !== primary) return
    this.#lookingAround = true
    void this.#searches
      .find(this.#next, primary.index)
      .then(
        found => {
          const isLater = found.timeline > primary.timeline && this.#primary === primary
          if (!isLater) return this.#end(found)
          this.#lost(primary, `${found.host} is the primary of a later timeline`)
          this.#end(found)
        },
        () => undefined, // no other primary
      )
      .finally(() => {
        this.#lookingAround = false
      })
  }

  /** A connection of the known primary. A server that takes none is lost. */
  async #connect(primary: Primary): Promise<LentConnection> {
    try {
      return await primary.connections.lend()
    } catch (error) {
      if (error instanceof ConnectionsBusy) throw error
      const reason = messageOf(error)
      this.#lost(primary, reason, refusalOf(error))
      throw new DatabaseUnavailable(`cannot connect to ${primary.host}: ${reason}`, { cause: error })
    }
  }

  /**
   * Joins the round of attempts under way, or starts one, unless the last round has just failed.
   */
  #search(): Promise<Primary> {
    if (this.#closing.signal.aborted) return Promise.reject(new DatabaseUnavailable('the database is closed'))
    if (this.#round !== undefined) return this.#round
    if (performance.now() - this.#roundEnded < LEAST_PAUSE_MS) return Promise.reject(this.#lastFailure)
    clearTimeout(this.#retry)
    this.#round = this.#searches
      .find(this.#next)
      .then(
        primary => this.#found(primary),
        (error: unknown) => this.#foundNobody(error),
      )
      .finally(() => {
        this.#round = undefined
      })
    return this.#round
  }

  #found(primary: Primary): Primary {
    if (this.#closing.signal.aborted) {
      this.#end(primary)
      throw new DatabaseUnavailable('the database is closed')
    }
    this.#primary = primary
    this.#next = primary.index
    this.#pause = FIRST_PAUSE_MS
    const { host, pooled, connections } = primary
    const { synchronousCommit } = connections
    this.#setState({ state: 'up', host, pooled, synchronousCommit })
    return primary
  }

  #foundNobody(error: unknown): never {
    const failure =
      error instanceof DatabaseUnavailable ? error : new DatabaseUnavailable(messageOf(error), { cause: error })
    this.#lastFailure = failure
    this.#roundEnded = performance.now()
    this.#setState({ state: 'down', reason: failure.message, refusal: failure.refusal })
    if (!this.#closing.signal.aborted) {
      this.#retry = setTimeout(
        () => {
          this.#search().catch(() => undefined) // the state has the error
        },
        Math.max(this.#pause, LEAST_PAUSE_MS + 1),
      )
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS)
    }
    throw failure
  }

  /** Drops the server and searches the primary at once, beginning with the next host. */
  #lost(primary: Primary, reason: string, refusal?: ConnectionRefusal): void {
    if (this.#primary !== primary) return
    this.#primary = undefined
    this.#next = (primary.index + 1) % this.#options.hosts.length
    this.#end(primary)
    if (this.#closing.signal.aborted) return
    this.#setState({ state: 'down', reason: `${primary.host}: ${reason}`, refusal })
    this.#search().catch(() => undefined) // the state has the error
  }

  #end(primary: Primary): void {
    primary.watch?.stop()
    this.#endConnections(primary.connections)
  }

  #endConnections(connections: ServerConnections): void {
    const ended: Promise<void> = connections.end().finally(() => this.#ending.delete(ended))
    this.#ending.add(ended)
  }

  #setState(state: DatabaseState): void {
    const same = this.#state.state === state.state
    this.#state = state
    if (same) return
    for (const listener of this.#listeners) listener(state)
  }
}
