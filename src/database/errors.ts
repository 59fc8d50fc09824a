import { messageOf } from '../base/errors.ts'
/** No server that takes our statements can be reached just now. Trying later may help; nothing was done. */
export class DatabaseUnavailable extends Error {
  override readonly name = 'DatabaseUnavailable'
}

/**
 * The connection broke, or the deadline passed, while a statement was under way: it may or may not have been done.
 * Trying later may help.
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

/** A newer program has migrated this database: this one would damage it. */
export class SchemaTooNew extends Error {
  override readonly name = 'SchemaTooNew'
  readonly found: number
  readonly known: number

  constructor(found: number, known: number) {
    super(
      `the database has schema ${found}, this auth-relay knows ${known}: run a newer auth-relay, or give it a database of its own`,
    )
    this.found = found
    this.known = known
  }
}

/** A migration could not be applied; nothing of it was. */
export class MigrationFailed extends Error {
  override readonly name = 'MigrationFailed'
  readonly file: string

  constructor(file: string, cause: unknown) {
    super(`migration ${file} failed: ${messageOf(cause)}`, { cause })
    this.file = file
  }
}

/** The PostgreSQL of our own cannot be started; the message says what to do. */
export class EmbeddedServerFault extends Error {
  override readonly name = 'EmbeddedServerFault'
}
