import type { ConnectionOptions } from '../database/connection-options.ts'
import { openDatabase } from '../database/database.ts'
import type { Notifications } from '../database/notifications.ts'
import { listenForChanges } from './grant-changes.ts'
import type { GrantPolicy } from './grant-policy.ts'
import { createGrantReader } from './grant-reader.ts'
import type { GrantReader } from './grant-store.ts'

export type OpenGrantReader = {
  readonly reader: GrantReader
  /**
   * Calls `heard` soon after the list of grants changed, over a further connection; see
   * listenForChanges. Until `close`.
   */
  onChange(heard: () => void): void
  close(): Promise<void>
}

/**
 * The gate's side of the grants in a database: connects in the background, and again whenever it
 * must. `max`: connections at once.
 */
export function openGrantReader(
  access: ConnectionOptions & { readonly statementTimeoutMs: number; readonly max: number },
  policy: GrantPolicy,
): OpenGrantReader {
  const database = openDatabase({ ...access, applicationName: 'auth-relay wrap' })
  const listeners: Notifications[] = []
  return {
    reader: createGrantReader(database, policy),
    onChange: heard => {
      listeners.push(listenForChanges({ ...access, applicationName: 'auth-relay wrap' }, heard))
    },
    async close() {
      await Promise.all([database.close(), ...listeners.map(listener => listener.close())])
    },
  }
}
