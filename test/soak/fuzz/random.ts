/**
 * Numbers that look random and are the same for the same seed (mulberry32, finalised by a second
 * mix).
 */
export class Random {
  #state: number

  /**
   * `stream` makes independent sequences of one seed, so that input number 5 can be made without
   * the four before it.
   */
  constructor(seed: number, stream = 0) {
    this.#state = mixed(mixed(seed) ^ Math.imul(stream + 1, 0x9e3779b9))
  }

  /** A whole number from 0 to `below` - 1. */
  int(below: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0
    return Math.floor((mixed(this.#state) / 0x1_0000_0000) * below)
  }

  /** True in one of `n` cases. */
  oneIn(n: number): boolean {
    return this.int(n) === 0
  }

  /** One of the list, which must not be empty. */
  pick<T>(list: readonly T[]): T {
    const item = list[this.int(list.length)]
    if (item === undefined) throw new RangeError('nothing to pick from')
    return item
  }

  /** Any text of up to `most` octets, one character per octet. */
  octets(most: number): string {
    let text = ''
    for (let left = this.int(most + 1); left > 0; left--) text += String.fromCharCode(this.int(256))
    return text
  }
}

function mixed(value: number): number {
  let t = value | 0
  t = Math.imul(t ^ (t >>> 15), t | 1)
  t ^= t + Math.imul(t ^ (t >>> 7), t | 61)
  return (t ^ (t >>> 14)) >>> 0
}
