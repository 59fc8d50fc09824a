/** Makes and prepares connections to a host, and finds poolers and cancelled waits. */
import type { PeerCertificate } from 'node:tls'
import { Client, type ClientBase, type ClientConfig, DatabaseError } from 'pg'
import * as v from 'valibot'
import type { ConnectionOptions, DatabaseHost } from './connection-options.ts'

export const DEFAULT_CONNECT_TIMEOUT_MS = 3000

/** The options of a connection. */
type ConnectOptions = ConnectionOptions & {
  readonly applicationName: string
  readonly connectTimeoutMs?: number
}

/**
 * Returns the parameters of one connection to a host. If the options require TLS, the certificate
 * is always verified.
 */
export function clientConfig(options: ConnectOptions, { host, port }: DatabaseHost): ClientConfig {
  const { tls, password } = options
  const ssl =
    tls === undefined || host.startsWith('/')
      ? false
      : {
          rejectUnauthorized: true,
          minVersion: 'TLSv1.2' as const,
          ...(tls.ca === undefined ? {} : { ca: tls.ca }),
          // With an existing socket node:tls would compare the certificate with `localhost`.
          checkServerIdentity: (_: string, certificate: PeerCertificate) =>
            process.getBuiltinModule('node:tls').checkServerIdentity(tls.serverName ?? host, certificate),
        }
  return {
    host,
    port,
    database: options.database,
    user: options.user,
    ...(password === undefined ? {} : { password: password.reveal() }),
    ssl,
    connectionTimeoutMillis: options.connectTimeoutMs ?? DEFAULT_CONNECT_TIMEOUT_MS,
    application_name: options.applicationName,
    keepAlive: true,
    keepAliveInitialDelayMillis: 10_000,
  }
}

export const DEFAULT_STATEMENT_TIMEOUT_MS = 10_000

export type PreparationOptions = {
  /**
   * Limit of the server for a statement. The client's own limit is a second longer, and a signal
   * may come earlier. The server does not count the wait for a synchronous standby; the client
   * does.
   */
  readonly statementTimeoutMs?: number
  /**
   * The server refuses a statement (55P03) that waits longer for a lock. Left out:
   * statementTimeoutMs alone.
   */
  readonly lockTimeoutMs?: number
  /**
   * Named statements are planned once for each connection, for programs that send the same ones
   * again and again.
   */
  readonly planOnce?: boolean
}

/** The start time of the server, and the synchronous_commit that role, database and server set. */
export type PreparedSession = { readonly serverStarted: Date; readonly synchronousCommit: string }

const FOUND = v.object({ started: v.date(), found: v.string() })

/**
 * Prepares a new connection. If a setting is refused, rejects and closes the connection. It uses
 * SET and not startup parameters, because poolers refuse or drop these.
 *
 * Warnings must arrive (see CancelledWaits). In a cluster a commit waits for the standby's disk, so
 * a lower setting of role or database is raised. `remote_apply` waits for more and is not changed.
 */
export async function prepareSession(
  client: Pick<ClientBase, 'query'>,
  options: Pick<ConnectionOptions, 'cluster'> & PreparationOptions,
): Promise<PreparedSession> {
  const { statementTimeoutMs = DEFAULT_STATEMENT_TIMEOUT_MS, lockTimeoutMs, cluster, planOnce = false } = options
  const { rows } = await client.query(`SELECT pg_postmaster_start_time() AS started, s.found,
  set_config('client_min_messages', 'warning', false),
  set_config('statement_timeout', '${Math.round(statementTimeoutMs)}', false)${
    lockTimeoutMs === undefined ? '' : `,\n  set_config('lock_timeout', '${Math.round(lockTimeoutMs)}', false)`
  }${
    cluster === undefined
      ? ''
      : `,\n  set_config('synchronous_commit', CASE s.found WHEN 'remote_apply' THEN s.found ELSE 'on' END, false)`
  }
FROM (SELECT current_setting('synchronous_commit') AS found) AS s`)
  const { started, found } = v.parse(FOUND, rows[0])
  if (planOnce) await planForAnyParameters(client)
  return { serverStarted: started, synchronousCommit: found }
}

/**
 * Named statements are planned once for a connection. By default PostgreSQL plans some of them at
 * each execution, because the values may allow a better plan; for one login that doubled the work.
 * A server without the setting keeps its default.
 */
async function planForAnyParameters(client: Pick<ClientBase, 'query'>): Promise<void> {
  await client.query('SET plan_cache_mode = force_generic_plan').catch(() => undefined)
}

/** 01000: the wait was cancelled. 57P01: the server shuts down. Both with a successful commit. */
const WAIT_ENDED = new Set(['01000', '57P01'])

/**
 * Waits for a synchronous standby that ended early. The server commits before it waits, so a
 * cancelled wait ends with a warning and a success: the row is on one disk alone, and a failover
 * loses it. The text is translated by lc_messages, the SQLSTATE and the name of the server's
 * routine are not. `RAISE WARNING` of a function has the same SQLSTATE and another routine.
 */
export class CancelledWaits {
  readonly #reasons = new WeakMap<object, string>()

  /** Watches a connection. Call it once for a connection, before its first statement. */
  watch(client: Pick<ClientBase, 'on'>): void {
    client.on('notice', ({ code = '', routine, message }) => {
      if (routine === 'SyncRepWaitForLSN' || (WAIT_ENDED.has(code) && routine !== 'exec_stmt_raise')) {
        this.#reasons.set(client, `${message ?? 'warning'} (SQLSTATE ${code})`)
      }
    })
  }

  forget(client: object): void {
    this.#reasons.delete(client)
  }

  /**
   * The reason why the commit of the last statement may be on one server alone; undefined if it is
   * not.
   */
  of(client: object): string | undefined {
    return this.#reasons.get(client)
  }
}

/**
 * The reason why a connection pooler cannot be used. Part of the message; `auth-relay` adds the
 * pooler's address.
 */
export const TRANSACTION_POOLING = 'a connection pooler lends its connections for one transaction (pool_mode)'

const BACKEND = v.object({ pid: v.number() })
/** Other clients of the pooler may take the process in between. */
const TRIES = 3

/**
 * True if a connection pooler lends server processes for single transactions. Settings of one
 * session then reach other clients, named statements fail, and LISTEN reports nothing. Found by two
 * clients that get the same process in turn: a pooler of sessions keeps a process for its client
 * until the client disconnects.
 */
export async function poolsTransactions(client: Pick<ClientBase, 'query'>, config: ClientConfig): Promise<boolean> {
  const pidOf = async (session: Pick<ClientBase, 'query'>): Promise<number> =>
    v.parse(BACKEND, (await session.query('SELECT pg_backend_pid() AS pid')).rows[0]).pid
  // The first client takes the only process of a small pool, and the second one waits.
  const other = new Client({ ...config, query_timeout: config.connectionTimeoutMillis })
  other.on('error', () => {}) // the running statement gets the error too
  try {
    await other.connect()
    for (let left = TRIES; left > 0; left--) {
      const before = await pidOf(client)
      await other.query('BEGIN')
      const taken = await pidOf(other)
      const after = await pidOf(client)
      await other.query('ROLLBACK')
      if (taken === before || after !== before) return true
    }
    return false
  } catch (error) {
    // A pooler of statements refuses BEGIN. After any other error the second client was not served.
    return error instanceof DatabaseError && error.code === '08P01'
  } finally {
    void other.end().catch(() => undefined) // the connection is closed already
  }
}
