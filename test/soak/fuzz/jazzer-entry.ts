import { ChosenNumbers } from './chosen-numbers.ts'
import { TARGETS } from './targets.ts'

const target = TARGETS.find(({ name }) => name === process.env['FUZZ_TARGET'])

/**
 * Jazzer.js calls this function with octets that it derives from the coverage of earlier inputs.
 */
export function fuzz(octets: Buffer): void {
  if (target === undefined) throw new Error('FUZZ_TARGET names no target')
  target.attempt(new ChosenNumbers(octets))
}
