/** The search of the primary among the hosts: one round, and the facts about a server. */
import type { ClientConfig } from 'pg'
import * as v from 'valibot'
import { messageOf } from '../base/errors.ts'
import { clientConfig, poolsTransactions, TRANSACTION_POOLING } from './connect.ts'
import { nameOf } from './connection-options.ts'
import { DatabaseUnavailable, refusalOf } from './errors.ts'
import type { StandbyWatch } from './replication.ts'
import { type LentConnection, ServerConnections, type ServerOptions } from './server-connections.ts'
import { runStatement, type Statement } from './statement.ts'

/**
 * Whether the server takes writes, its timeline, and the process that answers. Runs once for each
 * server. Each promotion begins a new timeline, so of two primaries the older has the lower one.
 */
const FIRST_QUERY: Statement<{ read_only: boolean; timeline: number; pid: number }> = {
  text: `SELECT pg_is_in_recovery() OR current_setting('transaction_read_only')::boolean AS read_only,
  CASE WHEN pg_is_in_recovery() THEN 0
       ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END AS timeline,
  pg_backend_pid() AS pid`,
  row: v.object({ read_only: v.boolean(), timeline: v.number(), pid: v.number() }),
}
/**
 * In a cluster, the time that other hosts get after the first primary has answered, in
 * milliseconds.
 */
const OTHER_PRIMARY_MS = 500

/** A server that accepted writes when it was found. */
export type Primary = {
  readonly connections: ServerConnections
  readonly host: string
  readonly pooled: boolean
  readonly timeline: number
  index: number
  /** Milliseconds of the monotonic clock. */
  lastAnswer: number
  /** Watches the synchronous standbys; made for the first answer that must be proven. */
  watch: StandbyWatch | undefined
}

/** The reason why a host is not used, with the error of the attempt. */
type HostFailure = { readonly reason: string; readonly error: unknown }

export type PrimarySearchOptions = {
  readonly options: ServerOptions
  /** Ends the search. */
  readonly signal: AbortSignal
  /** A connection broke that was not lent, of the primary or of a server that is being tried. */
  readonly broke: (connections: ServerConnections, reason: string) => void
  /** Closes the connections of a server that is not used. */
  readonly end: (connections: ServerConnections) => void
}

/**
 * Finds the primary. Outside of a cluster it tries one host after the other, and returns the first
 * primary. In a cluster it tries all hosts at once, and returns the primary with the latest
 * timeline, because an old primary without its cluster still answers.
 */
export class PrimarySearch {
  readonly #options: ServerOptions
  readonly #signal: AbortSignal
  readonly #broke: PrimarySearchOptions['broke']
  readonly #end: PrimarySearchOptions['end']

  constructor({ options, signal, broke, end }: PrimarySearchOptions) {
    this.#options = options
    this.#signal = signal
    this.#broke = broke
    this.#end = end
  }

  /**
   * Runs a round: `first` is the index of the host to begin with, and `except` that of a host that
   * is left out.
   * @throws DatabaseUnavailable, with the reason of each host, if there is no primary.
   */
  async find(first: number, except?: number): Promise<Primary> {
    const { hosts } = this.#options
    const order = hosts.map((_, step) => (first + step) % hosts.length).filter(index => index !== except)
    const failures: HostFailure[] = []
    if (this.#options.cluster !== undefined && order.length > 1) {
      const latest = await this.#latestPrimary(order, failures)
      if (latest !== undefined) return latest
    } else {
      for (const index of order) {
        if (this.#signal.aborted) break
        const found = await this.#tryHost(index)
        if (!('reason' in found)) return found
        failures.push(found)
      }
    }
    const reasons = failures.map(({ reason }) => reason).join('; ')
    const cause = failures.find(({ error }) => refusalOf(error) !== undefined)?.error
    throw new DatabaseUnavailable(`no primary among the database hosts (${reasons})`, { cause })
  }

  /**
   * Queries all hosts at once. After the first primary has answered, the others get
   * OTHER_PRIMARY_MS.
   */
  async #latestPrimary(order: readonly number[], failures: HostFailure[]): Promise<Primary | undefined> {
    let latest: Primary | undefined
    let isOver = false
    let timer: NodeJS.Timeout | undefined
    const over = Promise.withResolvers<void>()
    const asked = order.map(async index => {
      const found = await this.#tryHost(index)
      if ('reason' in found) failures.push(found)
      else if (isOver || (latest !== undefined && latest.timeline >= found.timeline)) this.#end(found.connections)
      else {
        if (latest !== undefined) this.#end(latest.connections)
        latest = found
        timer ??= setTimeout(over.resolve, OTHER_PRIMARY_MS)
      }
    })
    await Promise.race([Promise.all(asked), over.promise])
    isOver = true
    clearTimeout(timer)
    return latest
  }

  /** A primary, or the reason why this host is not one. */
  async #tryHost(index: number): Promise<Primary | HostFailure> {
    const host = this.#options.hosts[index]
    if (host === undefined) return { reason: 'no such host', error: undefined }
    const connections = new ServerConnections(this.#options, host, reason => this.#broke(connections, reason))
    try {
      const connection = await connections.lend()
      let isUnusable = true
      try {
        const found = await lookAt(connection, clientConfig(this.#options, host))
        if (typeof found === 'string') throw new DatabaseUnavailable(found)
        isUnusable = false
        return {
          ...{ connections, host: nameOf(host), index, ...found, lastAnswer: performance.now(), watch: undefined },
        }
      } finally {
        connection.release(isUnusable)
      }
    } catch (error) {
      this.#end(connections)
      return { reason: `${nameOf(host)}: ${messageOf(error)}`, error }
    }
  }
}

/** Reads the facts about the server of a connection; throws the reason if it is refused. */
async function lookAt({ client, run }: LentConnection, config: ClientConfig) {
  const [answer] = (await runStatement(run, FIRST_QUERY)).rows
  if (answer?.read_only !== false) return 'a standby'
  // PostgreSQL sends each client the id of the process that serves it (BackendKeyData). A pooler
  // sends another number.
  const pooled = Reflect.get(client, 'processID') !== answer.pid
  if (pooled && (await poolsTransactions(client, config))) return TRANSACTION_POOLING
  return { pooled, timeline: answer.timeline }
}
