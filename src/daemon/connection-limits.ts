import { familyOf, formatNetwork, type IpAddress, networkOf } from '../wire/ip-address.ts'

/** Counts open connections, in all and per address (IPv6: per /64), and says when it is enough. */
export class ConnectionLimits {
  #max: number
  #maxPerAddress: number
  readonly #open = new Map<string, number>()
  #total = 0

  /** A maximum of 0 means no limit. */
  constructor(max: number, maxPerAddress: number) {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
  }

  /** Other limits from now on; connections that have their place keep it. */
  change(max: number, maxPerAddress: number): void {
    this.#max = max
    this.#maxPerAddress = maxPerAddress
  }

  /** Names the customer to whom a place of this address counts. */
  customerOf(ip: IpAddress): string {
    return keyOf(ip)
  }

  get total(): number {
    return this.#total
  }

  /** Takes a place, to be given back exactly once by `release`; or says which limit is reached. */
  acquire(ip: IpAddress): 'ok' | 'total' | 'address' {
    if (this.#max > 0 && this.#total >= this.#max) return 'total'
    const key = keyOf(ip)
    const count = this.#open.get(key) ?? 0
    if (this.#maxPerAddress > 0 && count >= this.#maxPerAddress) return 'address'
    this.#open.set(key, count + 1)
    this.#total += 1
    return 'ok'
  }

  /** Gives back a place that `acquire` granted. */
  release(ip: IpAddress): void {
    const key = keyOf(ip)
    const count = this.#open.get(key)
    if (count === undefined) throw new Error(`released more often than acquired: ${key}`)
    if (count === 1) this.#open.delete(key)
    else this.#open.set(key, count - 1)
    this.#total -= 1
  }
}

const keyOf = (ip: IpAddress): string => (familyOf(ip) === 4 ? ip : formatNetwork(networkOf(ip, 64)))
