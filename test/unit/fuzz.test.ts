import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { ChosenNumbers } from '../soak/fuzz/chosen-numbers.ts'
import { Random } from '../soak/fuzz/random.ts'
import { TARGETS } from '../soak/fuzz/targets.ts'

const INPUTS = 2000
const seed = Math.floor(Math.random() * 1_000_000_000)

describe(`${INPUTS} inputs for every reader of foreign octets; npm run test:soak -- fuzz has a million`, () => {
  test.each(TARGETS)('$name', target => {
    for (let n = 0; n < INPUTS; n++) {
      expect(() => target.attempt(new Random(seed, n)), `SOAK_SEED=${seed} SOAK_ONLY=${n}`).not.toThrow()
    }
  })
})

/**
 * Inputs that together reach the code that a fuzzer with coverage has reached: `npm run test:fuzz`.
 */
const corpus = new URL('../corpus/', import.meta.url).pathname

describe('the corpus', () => {
  test.each(TARGETS)('$name', ({ name, attempt }) => {
    const inputs = readFileSync(`${corpus}${name}.txt`, 'utf8').split('\n').slice(0, -1)
    expect(inputs.length).toBeGreaterThan(10)
    for (const input of inputs)
      expect(() => attempt(new ChosenNumbers(Buffer.from(input, 'base64'))), input).not.toThrow()
  })

  test('belongs to targets that exist', () => {
    expect(existsSync(corpus)).toBe(true)
    expect(readdirSync(corpus).sort()).toEqual(TARGETS.map(({ name }) => `${name}.txt`).sort())
  })
})
