import { KeyedHash } from '../base/keyed-hash.ts'
import { parseSessionTicket, type SessionTicket, type UsedTicket } from '../wire/maildrop-worker.ts'

/** Seconds between two looks for tickets that are void and need no longer be remembered. */
const SWEEP_EVERY = 30

/** Why a ticket was not taken. */
export type TicketRefusal = 'malformed' | 'forged' | 'expired' | 'repeated'

/**
 * Checks the tickets that the login process brings: each is the monitor's word that one session may
 * open one maildrop, once.
 */
export class TicketVerifier {
  readonly #mac: KeyedHash
  readonly #used = new Map<string, number>()
  #nextSweep = 0

  /** `used` are the tickets that the worker before this one took. */
  constructor(hexKey: string, used: readonly UsedTicket[] = []) {
    for (const { id, expires } of used) this.#used.set(id, expires)
    this.#mac = new KeyedHash(Buffer.from(hexKey, 'hex'))
  }

  /**
   * The ticket, if the monitor made it, it has not expired at `now` (Unix seconds) and was not
   * shown before.
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

  /** Tickets that were taken and would still be good at `now` (Unix seconds). */
  used(now: number): readonly UsedTicket[] {
    this.#sweep(now)
    return [...this.#used].map(([id, expires]) => ({ id, expires }))
  }

  #sweep(now: number): void {
    this.#nextSweep = now + SWEEP_EVERY
    for (const [id, expires] of this.#used) if (expires <= now) this.#used.delete(id)
  }
}
