import type { ServerAccount } from '../../../src/database/server-account.ts'

/**
 * Account of a PostgreSQL that a test starts. As root: ids that no account of the host has.
 * Otherwise: the account of the test.
 */
export const testServerAccount: ServerAccount | undefined =
  process.geteuid?.() === 0 ? { uid: 61_215, gid: 61_215 } : undefined
