/**
 * A whole POP3 session in memory: AUTHORIZATION joined with TRANSACTION and UPDATE.
 *
 * `push` takes octets and returns the replies, so tests can run any input, cut at any octet,
 * without a socket, a file or a clock. The functions of `SessionHost` return synchronously.
 */

import {
  AUTHORIZATION_START,
  type AuthorizationEffect,
  type AuthorizationOptions,
  type AuthorizationStep,
  afterFailure,
  afterStartTls,
  type LoginFailure,
  lineLimit,
  runAuthorization,
} from '../../../src/pop3/authorization.ts'
import { COMMAND_LINE_LIMIT } from '../../../src/pop3/command.ts'
import { err, ok } from '../../../src/pop3/reply.ts'
import {
  CANNOT_OPEN,
  formatListing,
  type MaildropView,
  runTransaction,
  startTransaction,
  type TransactionOptions,
  type TransactionState,
  updateReply,
} from '../../../src/pop3/transaction.ts'
import { type Line, LineReader } from '../../../src/wire/lines.ts'

/** An open maildrop and the content of its messages. */
export interface OpenMaildrop extends MaildropView {
  /**
   * Returns the reply to RETR or TOP with its termination; undefined if the message cannot be
   * opened.
   */
  retrieve(number: number, bodyLines: number | undefined): string | undefined
  /**
   * UPDATE: removes the marked messages. Returns the number of messages that could not be removed.
   */
  update(deleted: ReadonlySet<number>): number
}

export interface SessionHost {
  /** Text of the greeting, with the timestamp for APOP. */
  readonly greeting: string
  readonly authorization: AuthorizationOptions
  /** Options after STLS, or after an accepted `SSL` command. */
  readonly overTls: AuthorizationOptions
  readonly transaction: TransactionOptions
  /** Returns the maildrop of a correct login, or the reason of a failed one. */
  authenticate(attempt: Extract<AuthorizationEffect, { kind: 'authenticate' }>): OpenMaildrop | LoginFailure
  /** Checks the argument of the `SSL` command. */
  preamble(argument: string): 'accepted' | 'malformed' | 'wrong'
}

/** One session. Replies have one character per octet. */
export class MemorySession {
  readonly #host: SessionHost
  #reader = new LineReader()
  #options: AuthorizationOptions
  #authorization = AUTHORIZATION_START
  #transaction: { readonly state: TransactionState; readonly maildrop: OpenMaildrop } | undefined
  #replies: string
  #isOver = false

  /** The first `push` returns the greeting. */
  constructor(host: SessionHost) {
    this.#host = host
    this.#options = host.authorization
    this.#replies = ok(host.greeting)
  }

  /** True after the server has closed the connection. Further octets get no reply. */
  get isOver(): boolean {
    return this.#isOver
  }

  /** Takes octets of the client and returns the replies to the lines that they complete. */
  push(octets: Uint8Array): string {
    this.#reader.push(octets)
    while (!this.#isOver) {
      const line = this.#reader.next(
        this.#transaction === undefined ? lineLimit(this.#authorization) : COMMAND_LINE_LIMIT,
      )
      if (line === undefined) break
      if (this.#transaction === undefined) this.#step(runAuthorization(this.#authorization, line, this.#options))
      else this.#run(this.#transaction, line)
    }
    const replies = this.#replies
    this.#replies = ''
    return replies
  }

  #step({ state, effects }: AuthorizationStep): void {
    this.#authorization = state
    for (const effect of effects) {
      switch (effect.kind) {
        case 'reply':
          this.#replies += effect.text
          break
        case 'authenticate':
          this.#authenticate(effect)
          break
        case 'startTls':
          // Discard clear text that the client sent behind STLS (RFC 2595 §4).
          this.#reader = new LineReader()
          this.#authorization = afterStartTls(this.#authorization)
          this.#options = this.#host.overTls
          break
        case 'preamble':
          this.#preamble(effect.argument)
          break
        case 'close':
          this.#isOver = true
          break
      }
    }
  }

  #authenticate(attempt: Extract<AuthorizationEffect, { kind: 'authenticate' }>): void {
    const maildrop = this.#host.authenticate(attempt)
    if (typeof maildrop === 'string') {
      this.#step(afterFailure(this.#authorization, maildrop, this.#options))
      return
    }
    this.#transaction = { state: startTransaction(maildrop, this.#host.transaction), maildrop }
    this.#replies += ok()
  }

  #preamble(argument: string): void {
    const verdict = this.#host.preamble(argument)
    if (verdict === 'accepted') {
      this.#options = this.#host.overTls
      this.#replies += ok()
      return
    }
    this.#replies += err(verdict === 'malformed' ? 'syntax error' : 'authorization failed')
    this.#isOver = true
  }

  #run({ state, maildrop }: { readonly state: TransactionState; readonly maildrop: OpenMaildrop }, line: Line): void {
    for (const effect of runTransaction(state, line)) {
      switch (effect.kind) {
        case 'reply':
          this.#replies += effect.text
          break
        case 'listing':
          this.#replies += formatListing(maildrop, effect.of, state.deleted)
          break
        case 'message':
          this.#replies += maildrop.retrieve(effect.number, effect.bodyLines) ?? CANNOT_OPEN
          break
        case 'enterUpdate':
          this.#replies += updateReply(maildrop.update(state.deleted), this.#host.transaction.compat)
          this.#isOver = true
          break
        case 'close':
          this.#isOver = true
          break
      }
    }
  }
}

/**
 * Runs a whole session and returns all replies. The result does not depend on how the octets are
 * cut into pieces.
 */
export function runSession(host: SessionHost, pieces: Iterable<Uint8Array>): string {
  const session = new MemorySession(host)
  let replies = session.push(new Uint8Array(0))
  for (const piece of pieces) replies += session.push(piece)
  return replies
}
