/**
 * A map with a bound: an entry above the bound removes the oldest. For every map whose keys come
 * from the network or from a log, so that no client can fill the memory.
 */
export class BoundedMap<Key, Value> extends Map<Key, Value> {
  /** Entries, at least 1. May be changed: the next entry that is set applies the new bound. */
  most: number

  constructor(most: number) {
    super()
    this.most = most
  }

  /** Keeps the age of an entry that exists. */
  override set(key: Key, value: Value): this {
    super.set(key, value)
    for (const oldest of this.keys()) {
      if (this.size <= this.most) break
      this.delete(oldest)
    }
    return this
  }

  /** Sets the entry as the newest one. */
  renew(key: Key, value: Value): void {
    this.delete(key)
    this.set(key, value)
  }
}
