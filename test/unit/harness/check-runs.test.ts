import fc from 'fast-check'
import { expect, test } from 'vitest'
import { assertRuns, checkRuns } from '../../harness/check-runs.ts'

/** Runs that stand still from the second one on, until the test lets them go on. */
function slowRuns() {
  const { promise: released, resolve: release } = Promise.withResolvers<void>()
  let begun = 0
  let ended = 0
  const run = async (fails: boolean): Promise<void> => {
    begun += 1
    if (begun > 1) await released
    if (fails && begun > 1) throw new Error('found late')
    ended += 1
  }
  return { run, release, counts: () => [begun, ended] }
}
const LIMIT = { numRuns: 100, seed: 1, interruptAfterTimeLimit: 100 }

test('the run that the time limit interrupts is awaited', async () => {
  const { run, release, counts } = slowRuns()
  setTimeout(release, 300)
  const details = await checkRuns(fc.constant(false), run, LIMIT)
  expect([details.failed, details.interrupted]).toEqual([false, true])
  expect(counts()).toEqual([2, 2])
})

test('a failure of that run counts', async () => {
  const { run, release } = slowRuns()
  setTimeout(release, 300)
  await expect(checkRuns(fc.constant(true), run, LIMIT)).rejects.toThrow('seed 1: Error: found late true')
})

test('other failures are reported as by fast-check', async () => {
  const fail = async (value: number): Promise<void> => {
    if (value > 10) throw new Error('too large')
  }
  const details = await checkRuns(fc.nat(), fail, { seed: 1 })
  expect([details.failed, details.counterexample]).toEqual([true, [11]])
  await expect(assertRuns(fc.nat(), fail, { seed: 1 })).rejects.toThrow('Counterexample: [11]')
  await assertRuns(fc.nat({ max: 10 }), fail, { seed: 1 })
})
