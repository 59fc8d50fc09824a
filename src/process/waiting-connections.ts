/**
 * Connections that have not proved anything yet, for a server that is full: one of them makes room for a new one.
 *
 * The customer with most of them gives one up, so that a crowd of one customer displaces nobody
 * else. Of that customer's the
 * oldest goes, but one that is being served (a password is being checked) only if all are. Where
 * several customers have as
 * many, the oldest connection among theirs goes by the same rule.
 */
export class WaitingConnections<T> {
  /** In order of arrival, with the customer. */
  readonly #customers = new Map<T, string | undefined>()
  readonly #counts = new Map<string, number>()

  /** Undefined stands for a proxy's connection whose client is not known yet: it counts for itself. */
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

  /** The connection that makes room; undefined if there is none. It stays here until it is deleted. */
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
