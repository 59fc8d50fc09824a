import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import type { ConnectionOptions, DatabaseHost } from './connection-options.ts'
import { clientConfig } from './database.ts'

/** Between two attempts, in milliseconds. */
const AGAIN = 1000

export type Notifications = { close(): Promise<void> }

/**
 * Calls `heard` for every NOTIFY on the channel, and whenever it begins to listen: what was said
 * before may be lost. A notification comes early or not at all, so nothing may depend on it. It
 * holds a connection of its own to the primary, which alone lets anybody listen, and looks for it
 * again and again; a server without LISTEN is asked once a second in vain. `channel`: an SQL
 * identifier of ours.
 *
 */
export function listenTo(
  options: ConnectionOptions & { readonly applicationName: string },
  channel: string,
  heard: () => void,
): Notifications {
  const closing = new AbortController()
  const running = keepListening(options, channel, heard, closing.signal)
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
  heard: () => void,
  signal: AbortSignal,
): Promise<void> {
  for (let n = 0; !signal.aborted; n++) {
    const host = options.hosts[n % options.hosts.length]
    if (host !== undefined) await listenOnce(options, host, channel, heard, signal)
    await pause(AGAIN, undefined, { signal, ref: false }).catch(() => undefined) // closed
  }
}

/** Until the connection ends or `signal` ends it. Never rejects. */
async function listenOnce(
  options: Parameters<typeof listenTo>[0],
  host: DatabaseHost,
  channel: string,
  heard: () => void,
  signal: AbortSignal,
): Promise<void> {
  const client = new Client(clientConfig(options, host))
  const ended = Promise.withResolvers<void>()
  const end = (): void => ended.resolve()
  client.on('error', end)
  client.on('end', end)
  client.on('notification', heard)
  signal.addEventListener('abort', end, { once: true })
  try {
    await client.connect()
    await client.query(`LISTEN ${channel}`)
    heard()
    await ended.promise
  } catch {
    // A standby, or nobody there: the next host.
  } finally {
    signal.removeEventListener('abort', end)
    await client.end().catch(() => undefined) // it is gone, which is what we want
  }
}
