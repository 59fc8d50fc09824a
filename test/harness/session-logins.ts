import type { LoginFailure } from '../../src/pop3/authorization.ts'

/** Password of the preamble in the transcripts of whole sessions. */
export const PREAMBLE_PASSWORD = 'preamble-password'

const PASSWORDS: ReadonlyMap<string, string> = new Map([
  ['ann', 'secret'],
  ['bea', ' a secret'],
])

/** Names that have no right password, and what the checker says about them. */
const FAILURES: ReadonlyMap<string, LoginFailure> = new Map([
  ['later', 'temporary'],
  ['taken', 'inUse'],
  ['early', 'loginDelay'],
  ['broken', 'permanent'],
  ['crashed', 'crashed'],
])

/**
 * The checker of the transcripts of whole sessions: why a login fails, undefined if it is right.
 * APOP sends the password itself, because a transcript cannot know the timestamp.
 */
export const failureOf = (login: string, secret: string): LoginFailure | undefined =>
  PASSWORDS.get(login) === secret ? undefined : (FAILURES.get(login) ?? 'credentials')
