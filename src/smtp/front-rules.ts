import type { Mailbox } from './address.ts'

/** Why a front refuses a command: the rule's name for the log, and the reply, an enhanced code in it. */
export type Refusal = { readonly rule: string; readonly reply: string }

/** A message or a recipient that counts against a limit. */
export type Reservation = {
  /** The server did not take it: it does not count. Called once at most. */
  giveBack(): void
}

/** What one client may send. Everything is decided at once: no command waits for a database. */
export interface FrontRules {
  /** Judges MAIL; undefined: it may pass. The null sender is undefined. */
  sender(sender: Mailbox | undefined): Refusal | undefined
  /** Counts a message, at its first recipient. */
  message(): Refusal | Reservation
  /** Judges RCPT and counts it. */
  recipient(recipient: Mailbox | undefined): Refusal | Reservation
}
