/** Request and result of a login in the login process. */
import type { Duplex } from 'node:stream'
import type { AuthorizationEffect, LoginFailure } from '../../pop3/authorization.ts'
import type { Connection, HalfClosable } from '../../sockets/connection.ts'
import type { ClientDisconnect } from '../client-disconnect.ts'
import type { Client } from './client.ts'

/** A login to be authenticated. */
export type LoginRequest = Omit<Extract<AuthorizationEffect, { kind: 'authenticate' }>, 'kind'> & {
  readonly client: Client
  /** The greeting's msg-id with its brackets. */
  readonly timestamp: string
}

/** The rest of a session, which a pop3d worker serves. */
export type WorkerSession = {
  /** Names the owner of the mail: one for each worker. */
  readonly owner: string
  /**
   * Hands the client's connection over, with its unused input; `ended` is called when its session
   * ends. Returns false if this is impossible now, or for this connection. The session must then be
   * relayed.
   */
  pass(client: Connection, readAhead: Uint8Array, ended: () => void): boolean
  /**
   * A connection to which the session is relayed, with the octets that were read from the client.
   * Undefined if it is not available now.
   */
  bridge(readAhead: Uint8Array): HalfClosable | undefined
  /** A stream to relay the session to. */
  connect(): Promise<LoginResult>
}

/**
 * Result of a successful login, which is announced.
 *
 * - `maildrop`: continue through the handoff.
 * - `open`: `stream` serves the rest of the session. `reply` are held-back octets of its answer to
 *   the password, and go to the client first.
 * - `closed`: no octets follow.
 */
export type LoginResult =
  | { readonly kind: 'maildrop'; readonly worker: WorkerSession }
  | { readonly kind: 'open'; readonly stream: Duplex; readonly reply: readonly Buffer[] }
  | { readonly kind: 'failed'; readonly failure: LoginFailure }
  | { readonly kind: 'closed' }

/**
 * Decides about logins and opens the next part of the session. `disconnect` reports a client that
 * disconnects first.
 */
export type Authenticator = (request: LoginRequest, disconnect: ClientDisconnect) => Promise<LoginResult>

export const failed = (failure: LoginFailure): LoginResult => ({ kind: 'failed', failure })
