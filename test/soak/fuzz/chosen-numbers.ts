import { Random } from './random.ts'

/**
 * Takes every choice from octets, because a fuzzer with coverage changes octets one by one. A
 * number takes two octets, or four beyond 65,536. After the last octet each number is the smallest.
 */
export class ChosenNumbers extends Random {
  readonly #octets: Uint8Array
  #at = 0

  constructor(octets: Uint8Array) {
    super(0)
    this.#octets = octets
  }

  override int(below: number): number {
    if (below <= 1) return 0
    let number = 0
    for (let left = below <= 256 ? 1 : below <= 65_536 ? 2 : 4; left > 0; left -= 1) {
      number = number * 256 + (this.#octets[this.#at] ?? 0)
      this.#at += 1
    }
    return number % below
  }
}
