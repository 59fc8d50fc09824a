import type { Clock } from '../../daemon/clock.ts'
import type { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { IpAddress } from '../../wire/ip-address.ts'

/** Failures count until so long after the last one. */
const FORGET_MS = 10 * 60_000
/** Rows of each table: above that the oldest goes. */
const MAX_ROWS = 20_000

/** `proof` is a fingerprint of login and secret together: the same wrong password again tells an attacker nothing. */
type Failures = { readonly count: number; readonly at: number; readonly proof: string }

/**
 * Makes guessing slow: after failures, the next attempts of the same customer (IPv6: /64) or for the same login wait
 * before they are checked, longer each time. Waiting before the check, not after, denies the shortcut of hanging up
 * when no quick yes comes. Everybody else goes on at full speed.
 *
 * Whoever has lately logged in from his address does not wait there, whatever others do to his login or his NAT; and a
 * device that repeats one stale password does not make it worse.
 */
export class FailureDelays {
  readonly #delays: readonly number[]
  readonly #clock: Clock
  #customers: CustomerNetworks
  readonly #addresses = new Map<string, Failures>()
  readonly #logins = new Map<string, Failures>()
  readonly #known = new Map<string, true>()

  /** Milliseconds to wait after the first, second, … failure; the last one stands for all further ones. */
  constructor(delays: readonly number[], clock: Clock, customers: CustomerNetworks) {
    this.#delays = delays
    this.#clock = clock
    this.#customers = customers
  }

  /** Puts other translators' prefixes in force. Failures that were counted under another key are forgotten in time. */
  useCustomers(customers: CustomerNetworks): void {
    this.#customers = customers
  }

  /** Milliseconds that an attempt must wait before it is checked. */
  delayFor(ip: IpAddress, login: string): number {
    const address = this.#customers.keyOf(ip)
    if (this.#known.has(pairKey(address, login))) return 0
    const count = Math.max(this.#countOf(this.#addresses, address), this.#countOf(this.#logins, loginKey(login)))
    return count === 0 ? 0 : (this.#delays[Math.min(count, this.#delays.length) - 1] ?? 0)
  }

  /** The checker said no. */
  failed(ip: IpAddress, login: string, proof: string): void {
    const address = this.#customers.keyOf(ip)
    this.#known.delete(pairKey(address, login))
    this.#add(this.#addresses, address, proof)
    this.#add(this.#logins, loginKey(login), proof)
  }

  /** The checker said yes. One good account does not buy an address free: only this pair is known now. */
  succeeded(ip: IpAddress, login: string): void {
    this.#logins.delete(loginKey(login))
    const pair = pairKey(this.#customers.keyOf(ip), login)
    this.#known.delete(pair)
    this.#known.set(pair, true)
    dropOldest(this.#known)
  }

  #countOf(table: Map<string, Failures>, key: string): number {
    const row = table.get(key)
    if (row === undefined) return 0
    if (this.#clock() - row.at <= FORGET_MS) return row.count
    table.delete(key)
    return 0
  }

  #add(table: Map<string, Failures>, key: string, proof: string): void {
    const before = this.#countOf(table, key)
    const repeated = before > 0 && table.get(key)?.proof === proof
    // Deleted and set again, so that the map's first row is the one that failed longest ago.
    table.delete(key)
    table.set(key, { count: repeated ? before : before + 1, at: this.#clock(), proof })
    dropOldest(table)
  }
}

function dropOldest(table: Map<string, unknown>): void {
  if (table.size <= MAX_ROWS) return
  const [oldest] = table.keys()
  if (oldest !== undefined) table.delete(oldest)
}

const loginKey = (login: string): string => login.toLowerCase().slice(0, 320)
const pairKey = (address: string, login: string): string => `${address} ${login.slice(0, 320)}`
