/** The worker's check of session tickets: signature, expiry, single use. */
import { KeyedHash } from '../base/keyed-hash.ts'
import { parseSessionTicket, type SessionTicket, type UsedTicket } from '../wire/workers/maildrop-worker.ts'

/** Seconds between two removals of expired tickets from memory. */
const SWEEP_EVERY_S = 30

/** Why a ticket is refused. */
export type TicketRefusal = 'malformed' | 'forged' | 'expired' | 'repeated'

/**
 * Checks the tickets that the login process presents. Each ticket is the monitor's permission for
 * one session to open one maildrop, once.
 */
export class TicketVerifier {
  readonly #mac: KeyedHash
  readonly #used = new Map<string, number>()
  #nextSweep = 0

  /** `used`: tickets that the previous worker has accepted. */
  constructor(hexKey: string, used: readonly UsedTicket[] = []) {
    for (const { id, expires } of used) this.#used.set(id, expires)
    this.#mac = new KeyedHash(Buffer.from(hexKey, 'hex'))
  }

  /**
   * Returns the ticket if the monitor has signed it, it has not expired at `now` (Unix seconds),
   * and it was not used before.
   */
  check(line: string, now: number): SessionTicket | TicketRefusal {
    const presented = parseSessionTicket(line)
    if (presented === undefined) return 'malformed'
    const { ticket, signedText, mac } = presented
    if (!this.#mac.matches(signedText, mac)) return 'forged'
    if (ticket.expires <= now) return 'expired'
    if (this.#used.has(ticket.id)) return 'repeated'
    if (now >= this.#nextSweep) this.#sweep(now)
    this.#used.set(ticket.id, ticket.expires)
    return ticket
  }

  /** Returns the used tickets that have not expired at `now` (Unix seconds). */
  used(now: number): readonly UsedTicket[] {
    this.#sweep(now)
    return [...this.#used].map(([id, expires]) => ({ id, expires }))
  }

  #sweep(now: number): void {
    this.#nextSweep = now + SWEEP_EVERY_S
    for (const [id, expires] of this.#used) if (expires <= now) this.#used.delete(id)
  }
}
