/** The delays of logins: after failures, and after the previous login (LOGIN-DELAY). */
import { hash } from 'node:crypto'
import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import type { CustomerNetworks } from '../../wire/customer-networks.ts'
import { formatNetwork, type IpAddress, networkOf } from '../../wire/ip-address.ts'
import { type LoginText, loginKey } from '../../wire/login-event.ts'
import { type CountedLogin, TICKET_LIFE_MS } from './maildrop-workers.ts'

/** Failures count for this time after the last one. */
const FORGET_MS = 10 * 60_000
/** Rows of each table; above it the oldest is dropped. */
const MAX_ROWS = 20_000
/**
 * Logins that may fail from a customer's network before its other logins wait: a household has some
 * forgotten devices.
 */
const CUSTOMER_TOLERANCE = 3
/** The same for an IPv6 /48, which may be a customer or a whole building. */
const SITE_TOLERANCE = 16
/** Different wrong passwords of a login that are distinguished from new ones. */
const MAX_PROOFS = 4
/**
 * Different wrong passwords in a row from an address, after which a login is not known there any
 * more.
 */
const KNOWN_STRIKES = 3

/**
 * `proofs`: fingerprints of login and secret together. The same wrong password again gives an
 * attacker no information.
 */
type LoginFailures = { readonly count: number; readonly at: number; readonly proofs: readonly string[] }

/**
 * Slows guessing down: after failures, the next attempts wait before the check, longer each time.
 * The delay comes before the check, so an attacker cannot skip it by disconnecting. Other clients
 * are not delayed. An attempt waits
 *
 * - for the failures of its login, from all addresses;
 * - for the other logins that failed from its customer's network (IPv4: the address, IPv6: its
 *   /64), from the fourth one on;
 * - for those of its IPv6 /48, from the seventeenth one on.
 *
 * Logins are counted, not failures, so that some devices with old passwords behind a NAT delay no
 * other client.
 *
 * The longest of these waits counts. A login that has succeeded from a network is known there and
 * does not wait, even if other clients fail with this login or from this NAT. It is known until
 * three different wrong passwords in a row come from there. A repeated wrong password counts once.
 */
export class FailureDelays {
  #delays: readonly number[]
  readonly #clock: Clock
  readonly #logins = new BoundedMap<string, LoginFailures>(MAX_ROWS)
  #customers: CustomerNetworks
  readonly #networks: FailedLogins
  readonly #sites: FailedLogins
  /** Pairs of network and login, and the strikes against each. */
  readonly #known = new BoundedMap<string, number>(MAX_ROWS)

  /**
   * Milliseconds to wait after the first, second, … failure; the last one stands for all further
   * ones.
   */
  constructor(delays: readonly number[], clock: Clock, customers: CustomerNetworks) {
    this.#delays = delays
    this.#clock = clock
    this.#customers = customers
    this.#networks = new FailedLogins(CUSTOMER_TOLERANCE, delays.length, clock)
    this.#sites = new FailedLogins(SITE_TOLERANCE, delays.length, clock)
  }

  /**
   * Puts other delays and translators' prefixes in force. Failures that were counted under another
   * key are forgotten in time.
   */
  use(delays: readonly number[], customers: CustomerNetworks): void {
    this.#delays = delays
    this.#customers = customers
    this.#networks.useLevels(delays.length)
    this.#sites.useLevels(delays.length)
  }

  /** Milliseconds that an attempt must wait before it is checked. */
  delayFor(ip: IpAddress, login: LoginText): number {
    if (this.isKnown(ip, login)) return 0
    const site = this.#siteOf(ip)
    const level = Math.max(
      this.#failuresOf(boundedKey(login))?.count ?? 0,
      this.#networks.levelFor(this.#customers.keyOf(ip), login),
      site === undefined ? 0 : this.#sites.levelFor(site, login),
    )
    return level === 0 ? 0 : (this.#delays[Math.min(level, this.#delays.length) - 1] ?? 0)
  }

  /**
   * True if the login has succeeded from the customer's network of the address, and fewer than
   * KNOWN_STRIKES different wrong passwords have come from there since. Time does not end it. If
   * the table is full, the pair with the oldest success is dropped.
   */
  isKnown(ip: IpAddress, login: LoginText): boolean {
    return this.#known.has(this.#pair(ip, login))
  }

  /** The checker refused the login. */
  failed(ip: IpAddress, login: LoginText, proof: string): void {
    const key = boundedKey(login)
    const before = this.#failuresOf(key)
    const isRepeated = before?.proofs.includes(proof) === true
    const proofs = [proof, ...(before?.proofs ?? []).filter(other => other !== proof)].slice(0, MAX_PROOFS)
    const count = (before?.count ?? 0) + (isRepeated ? 0 : 1)
    this.#logins.renew(key, { count, at: this.#clock(), proofs })
    this.#networks.add(this.#customers.keyOf(ip), login)
    const site = this.#siteOf(ip)
    if (site !== undefined) this.#sites.add(site, login)
    if (!isRepeated) this.#strike(this.#pair(ip, login))
  }

  /**
   * The checker accepted the login. One right login does not exempt an address: only this pair of
   * address and login is known now.
   */
  succeeded(ip: IpAddress, login: LoginText): void {
    const key = boundedKey(login)
    const before = this.#failuresOf(key)
    // The proofs stay: a device that repeats an old password does not begin a new row of failures
    // after each right login.
    if (before !== undefined) this.#logins.renew(key, { ...before, count: 0 })
    this.#known.renew(this.#pair(ip, login), 0)
  }

  /**
   * The /48 of an ordinary IPv6 address; undefined where a wider network is not that of a customer.
   */
  #siteOf(ip: IpAddress): string | undefined {
    const { base, prefixLength } = this.#customers.networkOf(ip)
    return prefixLength === 64 ? formatNetwork(networkOf(base, 48)) : undefined
  }

  #pair(ip: IpAddress, login: LoginText): string {
    return `${this.#customers.keyOf(ip)} ${login.slice(0, 320)}`
  }

  #strike(pair: string): void {
    const strikes = this.#known.get(pair)
    if (strikes === undefined) return
    if (strikes + 1 >= KNOWN_STRIKES) this.#known.delete(pair)
    else this.#known.set(pair, strikes + 1)
  }

  #failuresOf(key: string): LoginFailures | undefined {
    const row = this.#logins.get(key)
    if (row === undefined || this.#clock() - row.at <= FORGET_MS) return row
    this.#logins.delete(key)
    return undefined
  }
}

/**
 * For each network the logins that failed there lately, by fingerprint, with the time of the last
 * failure of each.
 */
class FailedLogins {
  readonly #tolerance: number
  #most: number
  readonly #clock: Clock
  readonly #rows = new BoundedMap<string, BoundedMap<string, number>>(MAX_ROWS)

  /** Above `tolerance` logins there are `levels` levels. */
  constructor(tolerance: number, levels: number, clock: Clock) {
    this.#tolerance = tolerance
    this.#most = this.#mostFor(levels)
    this.#clock = clock
  }

  useLevels(levels: number): void {
    this.#most = this.#mostFor(levels)
  }

  // One more, because the login of this attempt does not count against itself.
  #mostFor = (levels: number): number => this.#tolerance + Math.min(levels, 16) + 1

  /** Number of failed logins above the tolerance. The given login is not counted. */
  levelFor(network: string, login: LoginText): number {
    const row = this.#rows.get(network)
    if (row === undefined) return 0
    const oldest = this.#clock() - FORGET_MS
    for (const [other, at] of row) if (at < oldest) row.delete(other)
    if (row.size === 0) this.#rows.delete(network)
    const others = row.size - (row.has(fingerprint(login)) ? 1 : 0)
    return Math.max(0, others - this.#tolerance)
  }

  add(network: string, login: LoginText): void {
    const row = this.#rows.get(network) ?? new BoundedMap<string, number>(this.#most)
    row.most = this.#most
    row.renew(fingerprint(login), this.#clock())
    this.#rows.renew(network, row)
  }
}

const boundedKey = (login: LoginText): string => loginKey(login).slice(0, 320)
const fingerprint = (login: LoginText): string => hash('sha256', boundedKey(login), 'base64url').slice(0, 11)

/** Number of stored logins; above it the oldest one is dropped. */
const MAX_LOGINS = 100_000
/** Time in which a session can begin. The end of a ticket is rounded up to a full second. */
const TIME_TO_BEGIN_MS = TICKET_LIFE_MS + 1000

type Turn = { at: number; hasSession: boolean }

/**
 * LOGIN-DELAY (RFC 2449 §6.5): the shortest time from a session to the next login of the user. A
 * login without a session does not count. While a session may begin, other logins of the user are
 * refused, so that only one of several simultaneous logins gets a session.
 */
export class LoginIntervals {
  #minimum: number
  readonly #clock: Clock
  readonly #turns = new BoundedMap<string, Turn>(MAX_LOGINS)

  /** `minimum` in milliseconds; 0 = none. */
  constructor(minimum: number, clock: Clock) {
    this.#minimum = minimum
    this.#clock = clock
  }

  /** Puts another interval in force, which counts from the sessions that are remembered. */
  use(minimum: number): void {
    this.#minimum = minimum
  }

  /** Lets the user log in now; undefined if the interval is not over. */
  take(login: LoginText): CountedLogin | undefined {
    if (this.#minimum === 0) return NOT_COUNTED
    const key = boundedKey(login)
    const last = this.#turns.get(key)
    if (last !== undefined && this.#clock() - last.at < this.#lengthOf(last)) return undefined
    const turn: Turn = { at: this.#clock(), hasSession: false }
    this.#turns.renew(key, turn)
    return {
      sessionBegan: () => {
        turn.at = this.#clock()
        turn.hasSession = true
        this.#turns.renew(key, turn)
      },
      sessionRefused: () => {
        if (this.#turns.get(key) === turn) this.#turns.delete(key)
      },
    }
  }

  #lengthOf({ hasSession }: Turn): number {
    return hasSession ? this.#minimum : Math.min(this.#minimum, TIME_TO_BEGIN_MS)
  }
}

const NOT_COUNTED: CountedLogin = { sessionBegan: () => {}, sessionRefused: () => {} }
