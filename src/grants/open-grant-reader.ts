import { networkInterfaces } from 'node:os'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { openDatabase } from '../database/database.ts'
import { GrantPolicy, type GrantPolicyOptions } from './grant-policy.ts'
import { createGrantReader } from './grant-reader.ts'
import type { GrantReader } from './grant-store.ts'
import { ownAddresses } from './own-addresses.ts'

export type OpenGrantReader = {
  readonly reader: GrantReader
  readonly policy: GrantPolicy
  close(): Promise<void>
}

/** The gate's side of the grants in a database: connects in the background, and again whenever it must. `max`: connections at once. */
export function openGrantReader(
  access: ConnectionOptions & { readonly statementTimeoutMs: number; readonly max: number },
  options: Omit<GrantPolicyOptions, 'ownAddresses'>,
): OpenGrantReader {
  const policy = new GrantPolicy({ ...options, ownAddresses: ownAddresses(networkInterfaces, Date.now) })
  const database = openDatabase({ ...access, applicationName: 'auth-relay wrap' })
  return { reader: createGrantReader(database, policy), policy, close: () => database.close() }
}
