import type { ServerAccount } from '../../src/database/server-account.ts'

/**
 * Account of a PostgreSQL that a test starts: as root, ids that no account of the host has; else
 * our own.
 */
export const testServerAccount: ServerAccount | undefined =
  process.geteuid?.() === 0 ? { uid: 61_215, gid: 61_215 } : undefined
