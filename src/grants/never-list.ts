import {
  familyOf,
  type IpAddress,
  LOOPBACK,
  NEVER_GRANTED,
  type Network,
  type NetworkSet,
  networkContains,
  PRIVATE_NETWORKS,
} from '../wire/ip-address.ts'
import type { Refusal } from './grant-store.ts'

export type NeverListOptions = {
  /** UNSAFE, for demonstration and tests. */
  readonly grantLoopback: boolean
  /** Private and carrier-grade NAT addresses get no grant by login. */
  readonly denyPrivate: boolean
  /** Proxies, gateways, webmail hosts: where many people log in from one address. */
  readonly neverNets: NetworkSet
  /** The host's own addresses just now; see ownAddresses. */
  readonly ownAddresses: () => ReadonlySet<IpAddress>
}

/** Judges an address before any table is asked: never stored, never honoured (spec/wrap-and-db.md §4). */
export class NeverList {
  readonly #options: NeverListOptions

  constructor(options: NeverListOptions) {
    this.#options = options
  }

  /** Why the address can never be granted; undefined if it can. */
  refusal(ip: IpAddress): Exclude<Refusal, 'blocked' | 'private'> | undefined {
    if (LOOPBACK.has(ip)) return this.#options.grantLoopback ? undefined : 'loopback'
    if (NEVER_GRANTED.has(ip) || this.#options.neverNets.has(ip)) return 'never'
    return this.#options.ownAddresses().has(ip) ? 'own' : undefined
  }

  /**
   * Why a network cannot be allowed: it lies within what is never granted, so that allowing it would do nothing, or it
   * is so wide that it holds loopback, multicast and the like. Own addresses and proxies inside it are no reason: each
   * address is judged at lookup.
   */
  networkRefusal(network: Network): Exclude<Refusal, 'blocked' | 'private'> | undefined {
    const isWithin = (outer: Network): boolean =>
      outer.prefixLength <= network.prefixLength && networkContains(outer, network.base)
    const isAround = (inner: Network): boolean =>
      network.prefixLength < inner.prefixLength && networkContains(network, inner.base)
    if (LOOPBACK.networks.some(isAround)) return 'loopback'
    if (NEVER_GRANTED.networks.some(isAround)) return 'never'
    if (LOOPBACK.networks.some(isWithin)) return this.#options.grantLoopback ? undefined : 'loopback'
    if ([...NEVER_GRANTED.networks, ...this.#options.neverNets.networks].some(isWithin)) return 'never'
    const isSingle = network.prefixLength === (familyOf(network.base) === 4 ? 32 : 128)
    return isSingle ? this.refusal(network.base) : undefined
  }

  /** The same for a grant by login, which private addresses may be denied; the administrator may still allow them by name. */
  loginRefusal(ip: IpAddress): Exclude<Refusal, 'blocked'> | undefined {
    return this.refusal(ip) ?? (this.#options.denyPrivate && PRIVATE_NETWORKS.has(ip) ? 'private' : undefined)
  }
}
