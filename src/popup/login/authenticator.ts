import type { Duplex } from 'node:stream'
import type { AuthorizationEffect, LoginFailure } from '../../pop3/authorization.ts'
import type { Connection, HalfClosable } from '../../sockets/connection.ts'
import type { ClientGone } from '../client-gone.ts'
import type { Client } from './client.ts'

/** A login to be judged. */
export type LoginRequest = Omit<Extract<AuthorizationEffect, { type: 'authenticate' }>, 'type'> & {
  readonly client: Client
  /** The greeting's msg-id with its brackets. */
  readonly timestamp: string
}

/** Where a maildrop is served, by a process of ours. */
export type MaildropDoor = {
  /** Names the owner of the mail: one for each worker. */
  readonly owner: string
  /**
   * Hands the client's connection over, with what was read of it and nobody has used; `ended` is
   * called when its session is over. False if
   * that cannot be done now, or never with this connection, and the session must be relayed.
   */
  pass(client: Connection, readAhead: Uint8Array, ended: () => void): boolean
  /**
   * A connection to relay the session to, which goes on behind what was read of the client;
   * undefined if that cannot be done now.
   */
  bridge(readAhead: Uint8Array): HalfClosable | undefined
  /** A stream to relay the session to. */
  connect(): Promise<LoginResult>
}

/**
 * `maildrop`: the login is right and announced, the mail is at the door's other side. `open`: the
 * login is right and announced. The rest of the session is for `stream`; `reply` are octets of its
 * answer to
 * the password that were held back until now, and go to the client first. `closed`: nothing more is said.
 */
export type LoginResult =
  | { readonly outcome: 'maildrop'; readonly door: MaildropDoor }
  | { readonly outcome: 'open'; readonly stream: Duplex; readonly reply: readonly Buffer[] }
  | { readonly outcome: 'failed'; readonly failure: LoginFailure }
  | { readonly outcome: 'closed' }

/** Decides about logins and opens what comes after them. `departure` tells whether the client goes away first. */
export type Authenticator = (request: LoginRequest, departure: ClientGone) => Promise<LoginResult>

export const failed = (failure: LoginFailure): LoginResult => ({ outcome: 'failed', failure })
