import type { LoginFailure } from '../../../src/pop3/authorization.ts'

/** Password of the preamble in the transcripts of whole sessions. */
export const PREAMBLE_PASSWORD = 'preamble-password'

const PASSWORDS: ReadonlyMap<string, string> = new Map([
  ['ann', 'secret'],
  ['bea', ' a secret'],
])

/** Names without a valid password, and the checker's result for them. */
const FAILURES: ReadonlyMap<string, LoginFailure> = new Map([
  ['later', 'temporary'],
  ['taken', 'inUse'],
  ['early', 'loginDelay'],
  ['broken', 'permanent'],
  ['crashed', 'crashed'],
])

/**
 * The checker for the transcripts of whole sessions: returns the reason of a failure, or undefined
 * if the login is right. APOP sends the password itself, because a transcript cannot contain the
 * timestamp.
 */
export const failureOf = (login: string, secret: string): LoginFailure | undefined =>
  PASSWORDS.get(login) === secret ? undefined : (FAILURES.get(login) ?? 'credentials')
