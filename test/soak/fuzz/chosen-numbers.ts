import { Random } from './random.ts'

/**
 * Takes every choice from octets: a fuzzer that follows coverage changes them one by one. Two
 * octets for a number, four for one beyond 65,536; when none is left, the smallest number.
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
