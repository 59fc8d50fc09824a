/**
 * Bounds for the open connections of a process: limits per customer, room for new connections, and
 * descriptors.
 */

import { closeSync, openSync } from 'node:fs'
import { errorCodeOf } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import type { CustomerNetworks } from '../wire/customer-networks.ts'
import { familyOf, type IpAddress } from '../wire/ip-address.ts'

/** The customer of an IPv6 address with open connections, and the number of its connections. */
type Counted = { readonly customer: string; places: number }

/**
 * Counts open connections, in total and per customer's network (IPv4: the address, IPv6: its /64),
 * and reports when a limit is reached.
 */
export class ConnectionLimits {
  #max: number
  #maxPerAddress: number
  #customers: CustomerNetworks
  readonly #open = new Map<string, number>()
  /**
   * The customers of IPv6 addresses, so that `release` frees the place of the right customer even
   * if a reload has changed the translators' prefixes.
   */
  readonly #counted = new Map<IpAddress, Counted>()
  #total = 0

  /** A maximum of 0 means no limit. */
  constructor(max: number, maxPerAddress: number, customers: CustomerNetworks) {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
    this.#customers = customers
  }

  /** Changes the limits. Open connections keep their places. */
  change(max: number, maxPerAddress: number, customers: CustomerNetworks): void {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
    this.#customers = customers
  }

  /** True if the customer of this address may have one more connection. */
  customerHasRoom(ip: IpAddress): boolean {
    return this.#maxPerAddress === 0 || (this.#open.get(this.customerOf(ip)) ?? 0) < this.#maxPerAddress
  }

  /** Returns the key of the customer with this address. */
  customerOf(ip: IpAddress): string {
    return this.#counted.get(ip)?.customer ?? this.#customers.keyOf(ip)
  }

  get total(): number {
    return this.#total
  }

  /** Takes a place, which `release` must free exactly once. Otherwise returns the reached limit. */
  acquire(ip: IpAddress): 'ok' | 'total' | 'address' {
    if (this.#max > 0 && this.#total >= this.#max) return 'total'
    if (!this.customerHasRoom(ip)) return 'address'
    const known = this.#counted.get(ip)
    const key = this.customerOf(ip)
    this.#open.set(key, (this.#open.get(key) ?? 0) + 1)
    if (known !== undefined) known.places += 1
    else if (familyOf(ip) === 6) this.#counted.set(ip, { customer: key, places: 1 })
    this.#total += 1
    return 'ok'
  }

  /** Frees a place that `acquire` took. */
  release(ip: IpAddress): void {
    const known = this.#counted.get(ip)
    const key = known?.customer ?? ip
    const count = this.#open.get(key)
    if (count === undefined) throw new Error(`released more often than acquired: ${key}`)
    if (known !== undefined) {
      known.places -= 1
      if (known.places === 0) this.#counted.delete(ip)
    }
    if (count === 1) this.#open.delete(key)
    else this.#open.set(key, count - 1)
    this.#total -= 1
  }
}

/**
 * Connections before login. If the server is full, it closes one of them for a new connection.
 *
 * The customer with most connections loses one, so that a crowd of one customer displaces no other
 * customer. The oldest connection of that customer is closed first. A connection with a password
 * check under way is closed only if all of them have one. If several customers have equally many,
 * the oldest of their connections is closed by the same rule.
 */
export class WaitingConnections<T> {
  /** In order of arrival, with the customer. */
  readonly #customers = new Map<T, string | undefined>()
  readonly #counts = new Map<string, number>()

  /** Undefined: the client behind a proxy is not known yet. The connection counts alone. */
  add(connection: T, customer: string | undefined): void {
    this.delete(connection)
    this.#customers.set(connection, customer)
    if (customer !== undefined) this.#counts.set(customer, this.#countOf(customer) + 1)
  }

  delete(connection: T): void {
    const customer = this.#customers.get(connection)
    this.#customers.delete(connection)
    if (customer === undefined) return
    const others = this.#countOf(customer) - 1
    if (others > 0) this.#counts.set(customer, others)
    else this.#counts.delete(customer)
  }

  /**
   * The connection that is closed for a new one; undefined if there is none. It stays in the list
   * until it is deleted.
   */
  toEvict(isBeingServed: (connection: T) => boolean = () => false): T | undefined {
    let most = 1
    for (const count of this.#counts.values()) if (count > most) most = count
    let oldest: T | undefined
    for (const [connection, customer] of this.#customers) {
      if ((customer === undefined ? 1 : this.#countOf(customer)) < most) continue
      if (!isBeingServed(connection)) return connection
      oldest ??= connection
    }
    return oldest
  }

  [Symbol.iterator](): Iterator<T> {
    return this.#customers.keys()
  }

  #countOf(customer: string): number {
    return this.#counts.get(customer) ?? 0
  }
}

const CHECK_INTERVAL_MS = 1_000

/**
 * Logs when this process has no free descriptor, and when it has one again. Checks once a second,
 * because the runtime reports nothing: it accepts the next client on a reserved descriptor and
 * closes it at once.
 */
export function watchDescriptors(log: Log, hasOne: () => boolean = hasDescriptor): { stop(): void } {
  let had = true
  const timer = setInterval(() => {
    const has = hasOne()
    if (has === had) return
    had = has
    if (has) log.info('descriptors_freed')
    else
      log.error('descriptors_exhausted', {
        reason: 'new clients are refused',
        remedy: 'raise LimitNOFILE (ulimit -n), or lower max_connections',
      })
  }, CHECK_INTERVAL_MS).unref()
  return { stop: () => clearInterval(timer) }
}

function hasDescriptor(): boolean {
  try {
    closeSync(openSync('/dev/null', 'r'))
    return true
  } catch (error) {
    // ENFILE: the whole host has no free descriptor. Other errors have no relation to descriptors.
    return !['EMFILE', 'ENFILE'].includes(errorCodeOf(error) ?? '')
  }
}
