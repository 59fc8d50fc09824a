import fc from 'fast-check'
import { expect, test } from 'vitest'
import { assertRuns, checkRuns } from '../../harness/runner/check-runs.ts'

const LIMITED = { numRuns: 100, seed: 1, interruptAfterTimeLimit: 300 }

/**
 * Checks runs of which the second one waits until fast-check has returned, because its time limit
 * interrupts that run. `order`: the events in their order.
 */
function interruptedRuns(fails: boolean) {
  const { promise: checked, resolve: release } = Promise.withResolvers<void>()
  const order: string[] = []
  const run = async (): Promise<void> => {
    const isFirst = order.length === 0
    order.push('begun')
    if (isFirst) return
    await checked
    order.push('ended')
    if (fails) throw new Error('found late')
  }
  const details = checkRuns(fc.constant(fails), run, LIMITED, () => {
    order.push('checked')
    release()
  }).finally(() => order.push('awaited'))
  return { details, order }
}

test('the run that the time limit interrupts is awaited', async () => {
  const { details, order } = interruptedRuns(false)
  expect(await details).toMatchObject({ failed: false, interrupted: true })
  expect(order).toEqual(['begun', 'begun', 'checked', 'ended', 'awaited'])
})

test('a failure of that run counts', async () => {
  const { details, order } = interruptedRuns(true)
  await expect(details).rejects.toThrow('seed 1: Error: found late true')
  expect(order).toEqual(['begun', 'begun', 'checked', 'ended', 'awaited'])
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
