/**
 * Notifications of the database: a connection that only listens, and is made again after each end.
 */
import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import { clientConfig } from './connect.ts'
import type { ConnectionOptions, DatabaseHost } from './connection-options.ts'

/** Milliseconds between two attempts. */
const AGAIN_MS = 1000
/** Time limit of a server to close its end, in milliseconds. */
const CLOSE_LIMIT_MS = 1000

export type Notifications = { close(): Promise<void> }

/**
 * Calls `notified` for every NOTIFY on the channel, and at each start of listening, because earlier
 * notifications may be lost.
 *
 * A notification comes early or not at all, so no result may depend on notifications. The listener
 * has a separate connection to the primary, because a standby does not permit LISTEN. It tries
 * again once a second, also with a server without LISTEN. `channel`: an SQL identifier of
 * auth-relay.
 */
export function listenTo(
  options: ConnectionOptions & { readonly applicationName: string },
  channel: string,
  notified: () => void,
): Notifications {
  const closing = new AbortController()
  const running = keepListening(options, channel, notified, closing.signal)
  return {
    async close() {
      closing.abort()
      await running
    },
  }
}

async function keepListening(
  options: Parameters<typeof listenTo>[0],
  channel: string,
  notified: () => void,
  signal: AbortSignal,
): Promise<void> {
  for (let n = 0; !signal.aborted; n++) {
    const host = options.hosts[n % options.hosts.length]
    if (host !== undefined) await listenOnce(options, host, channel, notified, signal)
    await pause(AGAIN_MS, undefined, { signal, ref: false }).catch(() => undefined) // closed
  }
}

/** Listens until the connection ends or `signal` aborts. Never rejects. */
async function listenOnce(
  options: Parameters<typeof listenTo>[0],
  host: DatabaseHost,
  channel: string,
  notified: () => void,
  signal: AbortSignal,
): Promise<void> {
  const client = new Client(clientConfig(options, host))
  const ended = Promise.withResolvers<void>()
  const end = (): void => ended.resolve()
  client.on('error', end)
  client.on('end', end)
  client.on('notification', notified)
  signal.addEventListener('abort', end, { once: true })
  try {
    await client.connect()
    const listening = client.query(`LISTEN ${channel}`).then(notified)
    listening.catch(() => undefined) // The end of the connection is reported too.
    // A server that hangs does not answer, and must not delay `close`.
    await Promise.race([listening, ended.promise])
    await ended.promise
  } catch {
    // A standby, or no server: the next host is tried.
  } finally {
    signal.removeEventListener('abort', end)
    const closed = client.end().catch(() => undefined) // the connection is closed, as intended
    // A server that hangs keeps its end open.
    await Promise.race([closed, pause(CLOSE_LIMIT_MS, undefined, { ref: false })])
  }
}
