import { checkServerIdentity } from 'node:tls'
import { type ClientConfig, Pool, type PoolClient, type PoolConfig } from 'pg'
import * as v from 'valibot'
import { messageOf } from '../base/errors.ts'
import type { ConnectionOptions, DatabaseHost } from './connection-options.ts'
import { DatabaseUnavailable, failureOf, OutcomeUnknown } from './errors.ts'
import { type ArrayElement, arrayLiteral, type Result, type Statement, type Value } from './statement.ts'

export type DatabaseOptions = ConnectionOptions & {
  /** Shown in pg_stat_activity. */
  readonly applicationName: string
  /** Most connections at once. */
  readonly max?: number
  /**
   * The server cancels a statement after this time. The client cancels it one second later, or
   * earlier by a signal.
   */
  readonly statementTimeoutMs?: number
  /** Named statements are planned once for each connection. For those who ask the same again and again. */
  readonly planOnce?: boolean
  /** For one host to take a connection. */
  readonly connectTimeoutMs?: number
}

/**
 * `connecting`: not yet found. `up`: the primary is known; `pooled`: a connection pooler answers
 * for it. `down`: looked for again and again, with back-off.
 */
export type DatabaseState =
  | { readonly state: 'connecting' }
  | { readonly state: 'up'; readonly host: string; readonly pooled: boolean }
  | { readonly state: 'down'; readonly reason: string }

/** `signal`: the deadline. Passing it rejects at once, with OutcomeUnknown if the statement was under way. */
export type RunOptions = { readonly signal?: AbortSignal | undefined }

export interface Session {
  /**
   * @throws StatementRefused, OutcomeUnknown, DatabaseUnavailable; v.ValiError if the rows are not
   * what they should be.
   */
  query<Row>(statement: Statement<Row>, values?: readonly Value[], options?: RunOptions): Promise<Result<Row>>
  /** Several statements in one text, without parameters: migrations. */
  script(text: string, options?: RunOptions): Promise<void>
}

export interface Database extends Session {
  /** Commits if `work` resolves, else rolls back. The signal covers everything, the commit included. */
  transaction<T>(work: (session: Session) => Promise<T>, options?: RunOptions): Promise<T>
  state(): DatabaseState
  /** Calls at each change from now on; gives the function that ends that. */
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
/** A statement may cut the pause between two rounds short, but not below this. */
const LEAST_PAUSE_MS = 200

/** Whether the server takes writes, and which of its processes answers; asked once per server. */
const FIRST_QUERY: Statement<{ read_only: boolean; pid: number }> = {
  text: `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
  pg_backend_pid() AS pid`,
  row: v.object({ read_only: v.boolean(), pid: v.number() }),
}

/** A server that took writes when we found it. */
type Primary = {
  readonly pool: Pool
  readonly host: string
  readonly pooled: boolean
  index: number
  lastAnswer: number
}

class PrimaryDatabase implements Database {
  readonly #options: DatabaseOptions
  readonly #listeners = new Set<(state: DatabaseState) => void>()
  readonly #closing = new AbortController()
  #state: DatabaseState = { state: 'connecting' }
  #primary: Primary | undefined
  #round: Promise<Primary> | undefined
  #roundEnded = Number.NEGATIVE_INFINITY
  #lastFailure = new DatabaseUnavailable('not tried yet')
  /** The host to begin the next round with. */
  #next = 0
  #retry: NodeJS.Timeout | undefined
  #pause = FIRST_PAUSE_MS
  /** Pools that are being emptied. */
  readonly #ending = new Set<Promise<void>>()

  constructor(options: DatabaseOptions) {
    this.#options = options
    this.#search().catch(() => undefined) // the state says it, and every statement that waits gets it
  }

  state(): DatabaseState {
    return this.#state
  }

  onStateChange(listener: (state: DatabaseState) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  query<Row>(
    statement: Statement<Row>,
    values: readonly Value[] = [],
    { signal }: RunOptions = {},
  ): Promise<Result<Row>> {
    return this.#withClient(signal, run => typedQuery(run, statement, values))
  }

  script(text: string, { signal }: RunOptions = {}): Promise<void> {
    return this.#withClient(signal, async run => {
      await run({ text })
    })
  }

  transaction<T>(work: (session: Session) => Promise<T>, { signal }: RunOptions = {}): Promise<T> {
    return this.#withClient(signal, async run => {
      await run({ text: 'BEGIN' })
      try {
        const result = await work({
          query: (statement, values = []) => typedQuery(run, statement, values),
          script: async text => {
            await run({ text })
          },
        })
        await run({ text: 'COMMIT' })
        return result
      } catch (error) {
        // A connection that cannot roll back is unusable. #withClient has noticed that and closes
        // it.
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
    if (primary !== undefined) this.#end(primary.pool)
    await Promise.all(this.#ending)
  }

  /**
   * Lends a connection of the primary. After the deadline, or any error that is not the server's
   * own answer, the connection is closed and not lent again.
   */
  async #withClient<T>(outer: AbortSignal | undefined, work: (run: Run) => Promise<T>): Promise<T> {
    const deadline = deadlineOf(outer, (this.#options.statementTimeoutMs ?? DEFAULT_STATEMENT_TIMEOUT_MS) + 1000)
    const started = performance.now()
    let primary: Primary
    let client: PoolClient
    try {
      if (deadline.signal.aborted) throw deadline.signal.reason
      primary = await raced(deadline.signal, this.#primary ?? this.#search())
      client = await raced(deadline.signal, this.#connect(primary), late => late.release())
    } catch (error) {
      deadline.clear()
      if (deadline.signal.aborted) throw new DatabaseUnavailable('no connection within the deadline', { cause: error })
      throw error
    }
    let broken = false
    const run: Run = async config => {
      if (broken) throw new OutcomeUnknown(`connection to ${primary.host} is closed`)
      try {
        const result = await raced<RawResult>(deadline.signal, client.query(config))
        primary.lastAnswer = performance.now()
        return result
      } catch (error) {
        if (deadline.signal.aborted) {
          broken = true
          // No answer arrived: the server has stopped or hangs, and another one may be the primary
          // now.
          if (primary.lastAnswer < started) this.#lost(primary, 'no answer within the deadline')
          throw new OutcomeUnknown('the deadline passed under a statement', { cause: error })
        }
        const failure = failureOf(error, primary.host)
        broken ||= failure.serverLost
        if (failure.serverLost) this.#lost(primary, failure.error.message)
        throw failure.error
      }
    }
    try {
      return await work(run)
    } finally {
      deadline.clear()
      client.release(broken)
    }
  }

  /** A connection of the known primary. A server that takes none is lost. */
  async #connect(primary: Primary): Promise<PoolClient> {
    try {
      return await primary.pool.connect()
    } catch (error) {
      const reason = messageOf(error)
      // pg-pool's words when every connection is lent and none came back in time: busy, not lost.
      if (reason === 'timeout exceeded when trying to connect') {
        throw new DatabaseUnavailable('every connection is busy', { cause: error })
      }
      this.#lost(primary, reason)
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
    this.#round = this.#tryEveryHost()
      .then(
        primary => this.#found(primary),
        (error: unknown) => this.#foundNobody(error),
      )
      .finally(() => {
        this.#round = undefined
      })
    return this.#round
  }

  async #tryEveryHost(): Promise<Primary> {
    const { hosts } = this.#options
    const reasons: string[] = []
    for (let step = 0; step < hosts.length && !this.#closing.signal.aborted; step++) {
      const index = (this.#next + step) % hosts.length
      const host = hosts[index]
      if (host === undefined) continue
      const found = await this.#tryHost(host, index)
      if (typeof found !== 'string') return found
      reasons.push(`${nameOf(host)}: ${found}`)
    }
    throw new DatabaseUnavailable(`no primary among the database hosts (${reasons.join('; ')})`)
  }

  /** A primary, or why this host is none. */
  async #tryHost(host: DatabaseHost, index: number): Promise<Primary | string> {
    const pool = new Pool(poolConfig(this.#options, host))
    // A lent connection that fails between two statements has no other listener for `error`, and
    // the event would end the process.
    pool.on('connect', client => client.on('error', () => {}))
    // An idle connection that breaks; statements under way get their own error.
    pool.on('error', error => {
      if (this.#primary?.pool === pool) this.#lost(this.#primary, error.message)
    })
    try {
      const client = await pool.connect()
      try {
        const { rows } = await typedQuery(config => client.query(config), FIRST_QUERY, [])
        const [answer] = rows
        if (answer?.read_only === false) {
          // PostgreSQL sends each client the id of the process that serves it (BackendKeyData). A
          // pooler invents a number.
          const pooled = Reflect.get(client, 'processID') !== answer.pid
          return { pool, host: nameOf(host), pooled, index, lastAnswer: performance.now() }
        }
      } finally {
        client.release()
      }
      this.#end(pool)
      return 'a standby'
    } catch (error) {
      this.#end(pool)
      return messageOf(error)
    }
  }

  #found(primary: Primary): Primary {
    if (this.#closing.signal.aborted) {
      this.#end(primary.pool)
      throw new DatabaseUnavailable('the database is closed')
    }
    this.#primary = primary
    this.#next = primary.index
    this.#pause = FIRST_PAUSE_MS
    this.#setState({ state: 'up', host: primary.host, pooled: primary.pooled })
    return primary
  }

  #foundNobody(error: unknown): never {
    const failure =
      error instanceof DatabaseUnavailable ? error : new DatabaseUnavailable(messageOf(error), { cause: error })
    this.#lastFailure = failure
    this.#roundEnded = performance.now()
    this.#setState({ state: 'down', reason: failure.message })
    if (!this.#closing.signal.aborted) {
      this.#retry = setTimeout(
        () => {
          this.#search().catch(() => undefined) // the state says it
        },
        Math.max(this.#pause, LEAST_PAUSE_MS + 1),
      )
      this.#pause = Math.min(this.#pause * 2, LONGEST_PAUSE_MS)
    }
    throw failure
  }

  /** Gives the server up and looks for the primary at once, beginning with the next host. */
  #lost(primary: Primary, reason: string): void {
    if (this.#primary !== primary) return
    this.#primary = undefined
    this.#next = (primary.index + 1) % this.#options.hosts.length
    this.#end(primary.pool)
    if (this.#closing.signal.aborted) return
    this.#setState({ state: 'down', reason: `${primary.host}: ${reason}` })
    this.#search().catch(() => undefined) // the state says it
  }

  #end(pool: Pool): void {
    const ended: Promise<void> = pool
      .end()
      .catch(() => undefined) // its connections are closed, as intended
      .finally(() => this.#ending.delete(ended))
    this.#ending.add(ended)
  }

  #setState(state: DatabaseState): void {
    const same = this.#state.state === state.state
    this.#state = state
    if (same) return
    for (const listener of this.#listeners) listener(state)
  }
}

const DEFAULT_STATEMENT_TIMEOUT_MS = 10_000

type RawResult = { readonly rows: readonly unknown[]; readonly rowCount: number | null }
type Run = (config: { text: string; values?: unknown[]; name?: string }) => Promise<RawResult>

async function typedQuery<Row>(
  run: Run,
  { text, name, row }: Statement<Row>,
  values: readonly Value[],
): Promise<Result<Row>> {
  const { rows, rowCount } = await run({
    text,
    values: values.map(value => (isArray(value) ? arrayLiteral(value) : value)),
    ...(name === undefined ? {} : { name }),
  })
  return { rows: rows.map(each => v.parse(row, each)), count: rowCount ?? 0 }
}

/** Array.isArray does not see that a readonly array is one. */
const isArray = (value: Value): value is readonly ArrayElement[] => Array.isArray(value)

/**
 * Plans each named statement once for a connection. The default of PostgreSQL may plan at each
 * execution in order to use the parameters, which doubled the time to store one login. A server
 * that does not know the setting keeps its default.
 */
async function planOnce(client: Pick<PoolClient, 'query'>): Promise<void> {
  await client.query('SET plan_cache_mode = force_generic_plan').catch(() => undefined)
}

/** How one connection to a host is made; never without verified TLS where the options want it. */
export function clientConfig(
  options: ConnectionOptions & Pick<DatabaseOptions, 'applicationName' | 'connectTimeoutMs'>,
  { host, port }: DatabaseHost,
): ClientConfig {
  const { tls, password } = options
  const ssl =
    tls === undefined || host.startsWith('/')
      ? false
      : {
          rejectUnauthorized: true,
          minVersion: 'TLSv1.2' as const,
          ...(tls.ca === undefined ? {} : { ca: tls.ca }),
          // Given the connection's own socket, node:tls would compare the certificate with `localhost`.
          checkServerIdentity: (_: string, certificate: Parameters<typeof checkServerIdentity>[1]) =>
            checkServerIdentity(tls.serverName ?? host, certificate),
        }
  return {
    host,
    port,
    database: options.database,
    user: options.user,
    ...(password === undefined ? {} : { password: password.reveal() }),
    ssl,
    connectionTimeoutMillis: options.connectTimeoutMs ?? 3000,
    application_name: options.applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  }
}

function poolConfig(options: DatabaseOptions, host: DatabaseHost): PoolConfig {
  return {
    ...clientConfig(options, host),
    max: options.max ?? 4,
    // One stays open, so that a server whose slots other clients have taken still answers us.
    min: 1,
    idleTimeoutMillis: 60_000,
    statement_timeout: options.statementTimeoutMs ?? DEFAULT_STATEMENT_TIMEOUT_MS,
    ...(options.planOnce === true ? { onConnect: planOnce } : {}),
  }
}

/** Aborts at the caller's signal or at the time limit, if that comes first. */
function deadlineOf(outer: AbortSignal | undefined, limitMs: number) {
  const inner = new AbortController()
  const abort = (): void => inner.abort(outer?.reason)
  const timer = setTimeout(() => inner.abort(new Error(`no answer within ${limitMs} ms`)), limitMs)
  if (outer?.aborted === true) abort()
  outer?.addEventListener('abort', abort, { once: true })
  return {
    signal: inner.signal,
    clear(): void {
      clearTimeout(timer)
      outer?.removeEventListener('abort', abort)
    },
  }
}

/** The promise, or the signal's reason if it is first; `discard` gets what comes too late. */
function raced<T>(signal: AbortSignal, promise: T | Promise<T>, discard?: (late: T) => void): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason)
    if (signal.aborted) onAbort()
    else signal.addEventListener('abort', onAbort, { once: true })
    Promise.resolve(promise).then(
      value => {
        signal.removeEventListener('abort', onAbort)
        if (signal.aborted) discard?.(value)
        else resolve(value)
      },
      (error: unknown) => {
        signal.removeEventListener('abort', onAbort)
        reject(error)
      },
    )
  })
}

const nameOf = ({ host, port }: DatabaseHost): string => (host.includes(':') ? `[${host}]:${port}` : `${host}:${port}`)
