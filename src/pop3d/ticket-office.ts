import { createHmac, createSecretKey, type KeyObject, timingSafeEqual } from 'node:crypto'
import { parseSessionTicket, type SessionTicket } from '../wire/session-ticket.ts'

/** Seconds between two looks for tickets that are void and need no longer be remembered. */
const SWEEP_EVERY = 30

/** Why a ticket was not taken. */
export type TicketRefusal = 'malformed' | 'forged' | 'expired' | 'repeated'

/** Checks the tickets that the login process brings: each is the keeper's word that one session may open one maildrop, once. */
export class TicketOffice {
  readonly #key: KeyObject
  readonly #used = new Map<string, number>()
  #nextSweep = 0

  constructor(hexKey: string) {
    // Given as octets, the key would be made ready for each ticket anew: six times the cost.
    this.#key = createSecretKey(hexKey, 'hex')
  }

  /** The ticket, if the keeper made it, it has not expired at `now` (Unix seconds) and was not shown before. */
  check(line: string, now: number): SessionTicket | TicketRefusal {
    const presented = parseSessionTicket(line)
    if (presented === undefined) return 'malformed'
    const { ticket, signedText, mac } = presented
    const expected = createHmac('sha256', this.#key).update(signedText).digest()
    const given = Buffer.from(mac, 'hex')
    if (given.length !== expected.length || !timingSafeEqual(given, expected)) return 'forged'
    if (ticket.expires <= now) return 'expired'
    if (this.#used.has(ticket.id)) return 'repeated'
    if (now >= this.#nextSweep) this.#sweep(now)
    this.#used.set(ticket.id, ticket.expires)
    return ticket
  }

  #sweep(now: number): void {
    this.#nextSweep = now + SWEEP_EVERY
    for (const [id, expires] of this.#used) if (expires <= now) this.#used.delete(id)
  }
}
