/** Counts of the commonest names: the table stays bounded, what finds no place is counted together under `(others)`. */
export class Tally {
  readonly #max: number
  readonly #counts = new Map<string, number>()

  constructor(max = 1000) {
    this.#max = max
  }

  add(name: string, count = 1): void {
    const known = this.#counts.has(name) || this.#counts.size < this.#max
    const key = known ? name : '(others)'
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + count)
  }

  /** Most frequent first. */
  entries(): readonly (readonly [string, number])[] {
    return [...this.#counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
  }
}
