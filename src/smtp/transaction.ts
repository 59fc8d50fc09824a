/** The mail transactions of a session, and their counts against the limits of the client. */
import type { Mailbox } from './address.ts'

/** The rules for mail: the `reason` of `mail_refused`. */
export type MailRule =
  | ('device_day' | 'device_ended' | 'device_hour' | 'device_hours' | 'device_network' | 'device_recipient')
  | ('device_sender' | 'expired' | 'line_endings' | 'messages_per_address' | 'messages_per_login' | 'recipient')
  | ('recipients_per_address' | 'recipients_per_login' | 'sender' | 'shared_address' | 'too_many_recipients')
  | 'undecided'

/** A refusal: the name of the rule for the log, and the reply with its enhanced code. */
export type Refusal = { readonly rule: MailRule; readonly reply: string }

/** A message or recipient that was counted against a limit. */
export type Reservation = {
  /** Removes it from the count, because the server did not accept it. Called at most once. */
  giveBack(): void
  /** The server has accepted the message. Called at most once. */
  accept?(): void
}

/**
 * Rules for one client. They decide synchronously, by the grant as it was last looked up. The
 * dialogue renews them before each MAIL; no other command waits for the database.
 */
export interface FrontRules {
  /** Checks MAIL; undefined: permitted. The null sender is undefined. */
  sender(sender: Mailbox | undefined): Refusal | undefined
  /** Counts a message. Called at its first recipient. */
  message(): Refusal | Reservation
  /** Checks RCPT and counts the recipient. */
  recipient(recipient: Mailbox | undefined): Refusal | Reservation
}

/** Recipients of one message. RFC 5321 §4.5.3.1.8 requires at least 100. */
const MAX_RECIPIENTS = 10_000
const TOO_MANY: Refusal = { rule: 'too_many_recipients', reply: '452 4.5.3 too many recipients' }

/** The effect of a passed command on the counts of its transaction. One method is called, once. */
export type Settlement = {
  /** The server has answered the command. `isDone`: the reply is 2xx. */
  answered(isDone: boolean): void
  /** The session ends before the answer. */
  abandoned(): void
}

/**
 * The transactions of a session: the current one, and earlier ones. An earlier one ends when the
 * server accepts the command that began the next one.
 */
export class Transactions {
  #current = new Transaction()

  get current(): Transaction {
    return this.#current
  }

  /**
   * Begins a transaction, for HELO, EHLO, RSET or MAIL. If the server refuses the command, the
   * earlier transaction goes on.
   */
  begin(): Settlement {
    const before = this.#current
    this.#current = new Transaction()
    return {
      answered: isDone => {
        if (isDone) before.giveBack()
        else this.#current.absorb(before)
      },
      abandoned: () => before.giveBack(),
    }
  }

  /** Counts a recipient until the server refuses it. */
  reserve(message: () => Refusal | Reservation, recipient: () => Refusal | Reservation): Refusal | Settlement {
    const transaction = this.#current
    const reserved = transaction.reserve(message, recipient)
    if ('rule' in reserved) return reserved
    return {
      answered: isDone => {
        if (!isDone) transaction.remove(reserved)
      },
      abandoned: () => {}, // the counts of the whole transaction are given back
    }
  }

  /** Ends the transaction with a message. It counts unless the server refuses it. */
  passMessage(): Settlement {
    const transaction = this.#current
    this.#current = new Transaction()
    return {
      answered: isDone => {
        if (isDone) transaction.accept()
        else transaction.giveBack()
      },
      abandoned: () => {}, // the server may have accepted the message
    }
  }
}

/**
 * One mail transaction of the client, from MAIL to the end of the message, RSET or the next
 * greeting.
 */
class Transaction {
  /** The front refused MAIL, so recipients and the message are refused too. */
  mailIsRefused = false
  /** A recipient was passed to the server, even if the server refused it. */
  hasPassed = false
  #lastRefusal: string | undefined
  #allAreTemporary = true
  #message: Reservation | undefined
  readonly #recipients = new Set<Reservation>()

  /** Counts a recipient, and at the first recipient the message. */
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
    this.recipientRefused(refusal.reply)
    return refusal
  }

  /** Records the reply that refuses a recipient, for the reply to DATA. */
  recipientRefused(reply: string): void {
    this.#lastRefusal = reply
    this.#allAreTemporary &&= reply.startsWith('4')
  }

  /** Reply to DATA if the front refused every recipient; otherwise undefined. */
  get noRecipients(): string | undefined {
    if (this.hasPassed || this.#lastRefusal === undefined) return undefined
    const text = this.#lastRefusal.replace(/^\d{3} \d\.\d+\.\d+ /, '')
    return this.#allAreTemporary ? `450 4.7.1 ${text}` : `554 5.5.1 no valid recipients: ${text}`
  }

  /** Handles the server's refusal of a recipient. */
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

  /** Handles the server's acceptance of the message. */
  accept(): void {
    this.#message?.accept?.()
  }

  /** Removes the message and its recipients from the counts. */
  giveBack(): void {
    for (const recipient of this.#recipients) recipient.giveBack()
    this.#recipients.clear()
    this.#closeIfEmpty()
  }

  /**
   * Takes over the recipients of an earlier transaction, because the server refused the command
   * that would have ended it.
   */
  absorb(earlier: Transaction): void {
    this.hasPassed ||= earlier.hasPassed
    for (const recipient of earlier.#recipients) this.#recipients.add(recipient)
    earlier.#recipients.clear()
    if (this.#message === undefined) this.#message = earlier.#message
    else earlier.#message?.giveBack()
    earlier.#message = undefined
  }
}
