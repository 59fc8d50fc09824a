import { ChosenNumbers } from './chosen-numbers.ts'
import { TARGETS } from './targets.ts'

const target = TARGETS.find(({ name }) => name === process.env['FUZZ_TARGET'])

/** Called by Jazzer.js with octets that it has made up by what they reached. */
export function fuzz(octets: Buffer): void {
  if (target === undefined) throw new Error('FUZZ_TARGET names no target')
  target.attempt(new ChosenNumbers(octets))
}
