/** The connections to one host: how many are lent, and that all of them reach the same server. */
import { Pool, type PoolClient } from 'pg'
import {
  CancelledWaits,
  clientConfig,
  DEFAULT_CONNECT_TIMEOUT_MS,
  type PreparationOptions,
  prepareSession,
} from './connect.ts'
import { type ConnectionOptions, type DatabaseHost, nameOf } from './connection-options.ts'
import { ConnectionsBusy, DatabaseUnavailable } from './errors.ts'
import type { RunQuery } from './statement.ts'

export type ServerOptions = ConnectionOptions &
  PreparationOptions & {
    /** Shown in pg_stat_activity. */
    readonly applicationName: string
    /** Most connections at once. */
    readonly max?: number
    /**
     * Time limit for a connection to one host, and for the return of one of the busy connections.
     */
    readonly connectTimeoutMs?: number
  }

/** A connection for one statement or transaction. */
export type LentConnection = {
  readonly client: Pick<PoolClient, 'query' | 'on'>
  readonly run: RunQuery
  /**
   * Why the commit of the last statement may be on one server alone; undefined if it is not. See
   * CancelledWaits.
   */
  cancelledWait(): string | undefined
  /** `isUnusable`: the connection is closed and not lent again. */
  release(isUnusable: boolean): void
}

const DEFAULT_MAX = 4

type Waiter = { readonly lend: () => void; readonly timer: NodeJS.Timeout }

/**
 * Connections to one host, all to the server that the first one found: one name may lead to several
 * servers in turn, for instance when an address moves.
 *
 * The class counts the connections that are lent, so the pool below never has to wait for one. An
 * error of the pool is therefore always an error of a new connection, and ConnectionsBusy is always
 * a server that works.
 */
export class ServerConnections {
  readonly #pool: Pool
  readonly #cancelledWaits = new CancelledWaits()
  readonly #waiting = new Set<Waiter>()
  readonly #waitMs: number
  /** Connections that may still be lent. */
  #free: number
  #started: Date | undefined
  #synchronousCommit = ''

  /** `broke`: called when a connection breaks that is not lent. */
  constructor(options: ServerOptions, host: DatabaseHost, broke: (reason: string) => void) {
    const max = options.max ?? DEFAULT_MAX
    this.#free = max
    this.#waitMs = options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS
    this.#pool = new Pool({
      ...clientConfig(options, host),
      max,
      // One connection stays open, so that this program can use a server whose slots other clients
      // have taken.
      min: 1,
      idleTimeoutMillis: 60_000,
      onConnect: async client => {
        const session = await prepareSession(client, options)
        if (this.#started !== undefined && this.#started.getTime() !== session.serverStarted.getTime()) {
          throw new DatabaseUnavailable(`${nameOf(host)} leads to another server now`)
        }
        this.#started = session.serverStarted
        this.#synchronousCommit = session.synchronousCommit
      },
    })
    // Without a listener, a lent connection that breaks between two statements would end the
    // process.
    this.#pool.on('connect', client => {
      client.on('error', () => {})
      this.#cancelledWaits.watch(client)
    })
    this.#pool.on('error', error => broke(error.message))
  }

  /** The setting of role, database and server, once a connection was lent. */
  get synchronousCommit(): string {
    return this.#synchronousCommit
  }

  /**
   * Lends a connection, which must be released.
   * @throws ConnectionsBusy if all are lent and none comes back in time; the error of the attempt
   * if the server takes no connection.
   */
  async lend(): Promise<LentConnection> {
    if (this.#free > 0) this.#free -= 1
    else await this.#wait()
    try {
      return this.#lent(await this.#pool.connect())
    } catch (error) {
      this.#cameBack()
      throw error
    }
  }

  #lent(client: PoolClient): LentConnection {
    return {
      client,
      run: config => {
        this.#cancelledWaits.forget(client)
        return client.query(config)
      },
      cancelledWait: () => this.#cancelledWaits.of(client),
      release: isUnusable => {
        client.release(isUnusable)
        this.#cameBack()
      },
    }
  }

  #wait(): Promise<void> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(waiter)
        reject(new ConnectionsBusy(`every connection is busy: none came back within ${this.#waitMs} ms`))
      }, this.#waitMs)
      const waiter = { lend: resolve, timer }
      this.#waiting.add(waiter)
    })
  }

  /** The statement that has waited longest gets the returned connection. */
  #cameBack(): void {
    const [first] = this.#waiting
    if (first === undefined) {
      this.#free += 1
      return
    }
    this.#waiting.delete(first)
    clearTimeout(first.timer)
    first.lend()
  }

  /** Closes every connection, a lent one after its release. */
  async end(): Promise<void> {
    // The pool refuses waiting statements.
    const ended = this.#pool.end()
    for (const { lend, timer } of this.#waiting) {
      clearTimeout(timer)
      lend()
    }
    this.#waiting.clear()
    await ended.catch(() => undefined) // the connections are closed, as intended
  }
}
