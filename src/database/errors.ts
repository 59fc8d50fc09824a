/**
 * Faults of the database: the classes that callers distinguish, and their mapping from errors of
 * the driver.
 */

import { DatabaseError } from 'pg'
import { messageOf } from '../base/errors.ts'

/**
 * The answer of a server that refused a connection, without the text that `lc_messages` chooses.
 */
export type ConnectionRefusal = {
  /** The SQLSTATE. */
  readonly code: string
  /** The function of PostgreSQL that refused. A pooler sends none. */
  readonly routine: string | undefined
}

/** The answer of the server in this error, also if the error has it as its cause. */
export function refusalOf(error: unknown): ConnectionRefusal | undefined {
  if (error instanceof DatabaseUnavailable) return error.refusal
  if (!(error instanceof DatabaseError) || error.code === undefined) return undefined
  return { code: error.code, routine: error.routine }
}

/**
 * No server that accepts the statements of auth-relay can be reached. Nothing was done, and a later
 * attempt may succeed.
 */
export class DatabaseUnavailable extends Error {
  override readonly name: string = 'DatabaseUnavailable'
  /** Present if a server refused the connection. */
  readonly refusal: ConnectionRefusal | undefined

  constructor(message: string, options?: ErrorOptions) {
    super(message, options)
    this.refusal = refusalOf(options?.cause)
  }
}

/** Every connection to a server that works is in use, and none came back in time. */
export class ConnectionsBusy extends DatabaseUnavailable {
  override readonly name = 'ConnectionsBusy'
}

/**
 * The connection broke, or the deadline passed, during a statement, which may have been done or
 * not. A later attempt may succeed.
 */
export class OutcomeUnknown extends Error {
  override readonly name = 'OutcomeUnknown'
}

/**
 * The server answered with an error. `code` is the SQLSTATE; trying the same again does not help
 * unless `temporary`.
 */
export class StatementRefused extends Error {
  override readonly name = 'StatementRefused'
  readonly code: string
  readonly temporary: boolean

  constructor(code: string, temporary: boolean, cause: Error) {
    super(`${cause.message} (SQLSTATE ${code})`, { cause })
    this.code = code
    this.temporary = temporary
  }
}

/** A newer program has migrated this database, and this program would damage it. */
export class SchemaTooNew extends Error {
  override readonly name = 'SchemaTooNew'
  readonly found: number
  readonly known: number

  constructor(found: number, known: number) {
    super(
      `the database has schema ${found}, this auth-relay knows ${known}: run a newer auth-relay, or give it its own database`,
    )
    this.found = found
    this.known = known
  }
}

/** A migration failed; nothing of it was applied. */
export class MigrationFailed extends Error {
  override readonly name = 'MigrationFailed'
  readonly file: string

  constructor(file: string, cause: unknown) {
    super(`migration ${file} failed: ${messageOf(cause)}`, { cause })
    this.file = file
  }
}

/** The embedded PostgreSQL cannot be started. The message names the remedy. */
export class EmbeddedServerFault extends Error {
  override readonly name = 'EmbeddedServerFault'
}

/**
 * SQLSTATEs after which this connection, and most likely its server, cannot be used (PostgreSQL
 * appendix A).
 */
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
/** A standby accepted the connection, or a primary has become a standby. */
const READ_ONLY = '25006' // read_only_sql_transaction

export type Failure = { readonly error: Error; readonly serverLost: boolean }

/**
 * The class of an error during a statement, and whether the connection must look for the primary
 * again.
 */
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
