import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { ClientFault, ClientFaults } from '../../wire/services/gate-report.ts'

/** Addresses whose faults are kept. The oldest are dropped first. */
const MAX_ADDRESSES = 10_000

/**
 * Faults of clients that the fronts of this gate saw since its start, with the last time of each.
 * `auth-relay explain` reads them by the query service. `clock`: Unix milliseconds.
 */
export class ClientFaultTimes {
  readonly #clock: Clock
  readonly #times = new BoundedMap<IpAddress, ClientFaults>(MAX_ADDRESSES)

  constructor(clock: Clock) {
    this.#clock = clock
  }

  add(ip: IpAddress, fault: ClientFault): void {
    this.#times.renew(ip, { ...this.#times.get(ip), [fault]: Math.floor(this.#clock() / 1000) })
  }

  of(ip: IpAddress): ClientFaults {
    return this.#times.get(ip) ?? {}
  }
}
