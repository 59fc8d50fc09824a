import { describe, expect, test } from 'vitest'
import { Random } from '../soak/fuzz/random.ts'
import { TARGETS } from '../soak/fuzz/targets.ts'

const INPUTS = 2000
const seed = Math.floor(Math.random() * 1_000_000_000)

describe(`${INPUTS} inputs for every reader of foreign bytes; npm run test:soak -- fuzz has a million`, () => {
  test.each(TARGETS)('$name', target => {
    for (let n = 0; n < INPUTS; n++) {
      expect(() => target.attempt(new Random(seed, n)), `SOAK_SEED=${seed} SOAK_ONLY=${n}`).not.toThrow()
    }
  })
})
