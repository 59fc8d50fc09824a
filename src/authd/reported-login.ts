import type { LoginAnswer, LoginEvent } from '../wire/login-event.ts'

/** Where authd hears of logins. */
export const SOURCES = ['socket', 'fifo', 'tcp', 'file', 'journal'] as const
export type Source = (typeof SOURCES)[number]

/** A login that somebody told authd of. */
export type ReportedLogin = {
  readonly event: LoginEvent
  readonly source: Source
  /** When it happened, in milliseconds, if that was before now: a line read late from a file. */
  readonly at?: number
  /** Called once with what the announcer is told: `committed` only after the commit. */
  readonly answer?: (answer: LoginAnswer) => void
  /** Called once when nothing more will be done for this login: stored, refused, or replaced by a newer one. */
  readonly settled?: () => void
}
