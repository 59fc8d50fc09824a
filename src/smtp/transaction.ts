import type { Mailbox } from './address.ts'

/**
 * Why a front refuses a command: the rule's name for the log, and the reply, an enhanced code in
 * it.
 */
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

/** Recipients of one message (RFC 5321 section 4.5.3.1.8 asks for 100). */
const MAX_RECIPIENTS = 10_000
const TOO_MANY: Refusal = { rule: 'too_many_recipients', reply: '452 4.5.3 too many recipients' }

/**
 * One mail transaction as the client sees it: from MAIL to the end of the message, RSET or the next
 * greeting.
 */
export class Transaction {
  /** The front refused MAIL: no recipient and no message can follow. */
  mailIsRefused = false
  /** A recipient was passed, whatever the server says of it. */
  hasPassed = false
  #lastRefusal: string | undefined
  #allAreTemporary = true
  #message: Reservation | undefined
  readonly #recipients = new Set<Reservation>()

  /** Counts a recipient, and with the first one the message. */
  reserve(message: () => Refusal | Reservation, recipient: () => Refusal | Reservation): Refusal | Reservation {
    if (this.#recipients.size >= MAX_RECIPIENTS) return this.#refused(TOO_MANY)
    const opened = this.#message ?? message()
    if ('rule' in opened) return this.#refused(opened)
    this.#message = opened
    const reserved = recipient()
    if ('rule' in reserved) {
      this.#closeIfEmpty()
      return this.#refused(reserved)
    }
    this.hasPassed = true
    this.#recipients.add(reserved)
    return reserved
  }

  #refused(refusal: Refusal): Refusal {
    this.#lastRefusal = refusal.reply
    this.#allAreTemporary &&= refusal.reply.startsWith('4')
    return refusal
  }

  /** The reply to DATA if the front refused every recipient. */
  get noRecipients(): string | undefined {
    if (this.hasPassed || this.#lastRefusal === undefined) return undefined
    const text = this.#lastRefusal.replace(/^\d{3} \d\.\d+\.\d+ /, '')
    return this.#allAreTemporary ? `450 4.7.1 ${text}` : `554 5.5.1 no valid recipients: ${text}`
  }

  /** The server refused this recipient. */
  remove(recipient: Reservation): void {
    if (!this.#recipients.delete(recipient)) return
    recipient.giveBack()
    this.#closeIfEmpty()
  }

  #closeIfEmpty(): void {
    if (this.#recipients.size > 0) return
    this.#message?.giveBack()
    this.#message = undefined
  }

  /** The server took no message. */
  giveBack(): void {
    for (const recipient of this.#recipients) recipient.giveBack()
    this.#recipients.clear()
    this.#closeIfEmpty()
  }

  /**
   * The command that should have ended an earlier transaction was refused: that one goes on here.
   */
  absorb(earlier: Transaction): void {
    for (const recipient of earlier.#recipients) this.#recipients.add(recipient)
    earlier.#recipients.clear()
    if (this.#message === undefined) this.#message = earlier.#message
    else earlier.#message?.giveBack()
    earlier.#message = undefined
  }
}
