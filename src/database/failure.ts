import { DatabaseError } from 'pg'
import { messageOf } from '../base/errors.ts'
import { DatabaseUnavailable, OutcomeUnknown, StatementRefused } from './errors.ts'

/** SQLSTATEs after which this connection, and most likely its server, is of no use to us (PostgreSQL appendix A). */
const CONNECTION_LOST = new Set([
  '57P01', // admin_shutdown
  '57P02', // crash_shutdown
  '57P03', // cannot_connect_now
  '57P05', // idle_session_timeout
])
/** Trying the same statement again may succeed. */
const TEMPORARY = new Set([
  '40001', // serialization_failure
  '40P01', // deadlock_detected
  '55P03', // lock_not_available
  '57014', // query_canceled: statement_timeout
])
/** A standby took our connection, or a primary has become one. */
const READ_ONLY = '25006' // read_only_sql_transaction

export type Failure = { readonly error: Error; readonly serverLost: boolean }

/** What an error of a statement under way means for the caller, and whether the server must be looked for anew. */
export function failureOf(error: unknown, host: string): Failure {
  if (error instanceof DatabaseError && error.code !== undefined) {
    const { code } = error
    if (code === READ_ONLY) {
      return {
        error: new DatabaseUnavailable(`${host} is not the primary any more`, { cause: error }),
        serverLost: true,
      }
    }
    if (!CONNECTION_LOST.has(code) && !code.startsWith('08')) {
      const temporary = TEMPORARY.has(code) || code.startsWith('53') // insufficient_resources
      return { error: new StatementRefused(code, temporary, error), serverLost: false }
    }
  }
  const reason = messageOf(error)
  return {
    error: new OutcomeUnknown(`connection to ${host} lost under a statement: ${reason}`, { cause: error }),
    serverLost: true,
  }
}
