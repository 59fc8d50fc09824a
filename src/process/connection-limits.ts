import type { CustomerNetworks } from '../wire/customer-networks.ts'
import { familyOf, type IpAddress } from '../wire/ip-address.ts'

/** The customer of an IPv6 address with open connections, and how many it has. */
type Counted = { readonly customer: string; places: number }

/**
 * Counts open connections, in all and per customer's network (IPv4: the address, IPv6: its /64),
 * and says when it is enough.
 */
export class ConnectionLimits {
  #max: number
  #maxPerAddress: number
  #customers: CustomerNetworks
  readonly #open = new Map<string, number>()
  /**
   * A place is given back to the customer who took it, also when other translators' prefixes are in
   * force since then.
   */
  readonly #counted = new Map<IpAddress, Counted>()
  #total = 0

  /** A maximum of 0 means no limit. */
  constructor(max: number, maxPerAddress: number, customers: CustomerNetworks) {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
    this.#customers = customers
  }

  /** Other limits from now on; connections that have their place keep it. */
  change(max: number, maxPerAddress: number, customers: CustomerNetworks): void {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
    this.#customers = customers
  }

  /** The customer of this address may have one more connection. */
  customerHasRoom(ip: IpAddress): boolean {
    return this.#maxPerAddress === 0 || (this.#open.get(this.customerOf(ip)) ?? 0) < this.#maxPerAddress
  }

  /** Names the customer to whom a place of this address counts. */
  customerOf(ip: IpAddress): string {
    return this.#counted.get(ip)?.customer ?? this.#customers.keyOf(ip)
  }

  get total(): number {
    return this.#total
  }

  /** Takes a place, to be given back exactly once by `release`; or says which limit is reached. */
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

  /** Gives back a place that `acquire` granted. */
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
