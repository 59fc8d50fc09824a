/** The fair queue of password checks. */
import { familyOf, formatNetwork, type Network, networkOf } from '../../wire/ip-address.ts'
import type { ClientDisconnect } from '../client-disconnect.ts'

/** The applicant of a password check. */
export type Applicant = {
  /** The networks that share the check's order, the widest first. */
  readonly networks: readonly string[]
  /** This login has lately succeeded from this address. */
  readonly isKnown: boolean
  /** The answer is not needed any more, because the client has disconnected or its time is over. */
  readonly disconnect: ClientDisconnect
}

/** The networks that share an order, for the customer's network. */
export function sharingNetworks(customer: Network): readonly string[] {
  const { base, prefixLength } = customer
  // A single IPv6 address stands for a customer behind a translator: the networks around it are not
  // those of a customer.
  const wider = familyOf(base) === 4 ? [16] : prefixLength === 128 ? [] : [32, 48]
  return [...wider.map(length => networkOf(base, length)), customer].map(formatNetwork)
}

/** The queue is full. The check is refused at once, so that the client can try again. */
export class CheckQueueFull extends Error {
  override readonly name = 'CheckQueueFull'
  constructor() {
    super('too many password checks are waiting')
  }
}

/** The answer is not needed any more, so the check was not started. */
export class CheckCancelled extends Error {
  override readonly name = 'CheckCancelled'
  constructor() {
    super('the password check was cancelled, because the client has disconnected')
  }
}

/** After this number of known applicants an unknown one comes next. */
const KNOWN_IN_A_ROW = 3

type Entry = {
  readonly applicant: Applicant
  readonly start: () => void
  readonly drop: (reason: Error) => void
}

/**
 * At most `atOnce` checks run, at most `mostWaiting` wait. The order is fair by network. The wide
 * networks (IPv4: /16, IPv6: /32) alternate, in each of them the narrower ones (IPv4: the address,
 * IPv6: /48, then /64). In the narrowest one the order is that of arrival.
 *
 * An address with a waiting check goes behind the addresses without one. Known applicants go first,
 * up to a limit. If the queue is full, the network with the most waiting checks loses its newest
 * one.
 *
 * An entry whose client disconnects leaves the queue at once and never runs.
 */
export class CheckQueue {
  readonly #atOnce: number
  readonly #mostWaiting: number
  readonly #known = new Share()
  readonly #others = new Share()
  #running = 0
  #knownInARow = 0

  constructor({ atOnce, mostWaiting }: { readonly atOnce: number; readonly mostWaiting: number }) {
    this.#atOnce = atOnce
    this.#mostWaiting = mostWaiting
  }

  /** Number of checks that wait. */
  get waiting(): number {
    return this.#known.size + this.#others.size
  }

  /**
   * Runs the work in the order of the queue. Rejects with CheckQueueFull or CheckCancelled if
   * the work never runs.
   */
  async run<T>(applicant: Applicant, work: () => Promise<T>): Promise<T> {
    const leave = await this.enter(applicant)
    try {
      return await work()
    } finally {
      leave()
    }
  }

  /**
   * Fulfilled when the applicant's work may run, with the function that ends the work; later calls
   * of that function have no effect. Rejects in the same cases as `run`. Uses the disconnect's
   * listener until then.
   */
  enter(applicant: Applicant): Promise<() => void> {
    if (applicant.disconnect.hasDisconnected) return Promise.reject(new CheckCancelled())
    if (this.#running < this.#atOnce) return Promise.resolve(this.#turn())
    return new Promise((resolve, reject) => {
      const share = applicant.isKnown ? this.#known : this.#others
      const entry: Entry = {
        applicant,
        start: () => {
          applicant.disconnect.listen(undefined)
          resolve(this.#turn())
        },
        drop: reject,
      }
      applicant.disconnect.listen(() => {
        share.remove(entry)
        reject(new CheckCancelled())
      })
      share.add(entry)
      if (this.waiting > this.#mostWaiting) this.#dropOne()
    })
  }

  #turn(): () => void {
    this.#running += 1
    let isOver = false
    return () => {
      if (isOver) return
      isOver = true
      this.#running -= 1
      this.#startNext()
    }
  }

  #startNext(): void {
    const isKnownNext = this.#known.size > 0 && (this.#others.size === 0 || this.#knownInARow < KNOWN_IN_A_ROW)
    this.#knownInARow = isKnownNext ? this.#knownInARow + 1 : 0
    const share = isKnownNext ? this.#known : this.#others
    share.take()?.start()
  }

  #dropOne(): void {
    const entry = this.#others.size > 0 ? this.#others.takeFromLargest() : this.#known.takeFromLargest()
    entry?.applicant.disconnect.listen(undefined)
    entry?.drop(new CheckQueueFull())
  }
}

/**
 * The waiting checks of one network, by the networks in it. A Map's order is the order of service.
 */
class Share {
  size = 0
  readonly #parts = new Map<string, Share>()
  readonly #entries = new Set<Entry>()

  add(entry: Entry, depth = 0): void {
    this.size += 1
    const key = entry.applicant.networks[depth]
    if (key === undefined) {
      this.#entries.add(entry)
      return
    }
    const part = this.#parts.get(key) ?? new Share()
    this.#parts.set(key, part)
    part.add(entry, depth + 1)
  }

  remove(entry: Entry, depth = 0): void {
    this.size -= 1
    const key = entry.applicant.networks[depth]
    const part = key === undefined ? undefined : this.#parts.get(key)
    if (key === undefined || part === undefined) {
      this.#entries.delete(entry)
      return
    }
    part.remove(entry, depth + 1)
    if (part.size === 0) this.#parts.delete(key)
  }

  /** Removes the next entry; its network then goes behind the others. */
  take(): Entry | undefined {
    const [first] = this.#parts
    if (first !== undefined) {
      const [key, part] = first
      this.#parts.delete(key)
      const entry = part.take()
      if (part.size > 0) this.#parts.set(key, part)
      if (entry !== undefined) this.size -= 1
      return entry
    }
    const [entry] = this.#entries
    if (entry !== undefined) {
      this.#entries.delete(entry)
      this.size -= 1
    }
    return entry
  }

  /** Removes the newest entry of the largest network. */
  takeFromLargest(): Entry | undefined {
    let largest: readonly [string, Share] | undefined
    for (const row of this.#parts) if (largest === undefined || row[1].size >= largest[1].size) largest = row
    if (largest !== undefined) {
      const [key, part] = largest
      const entry = part.takeFromLargest()
      if (part.size === 0) this.#parts.delete(key)
      if (entry !== undefined) this.size -= 1
      return entry
    }
    const entry = [...this.#entries].at(-1)
    if (entry !== undefined) {
      this.#entries.delete(entry)
      this.size -= 1
    }
    return entry
  }
}
