import { expect, test } from 'vitest'
import { CommitTiming } from '../../../../src/authd/queue/commit-timing.ts'

/** After logins at an interval, in milliseconds. */
function after(logins: number, interval: number): CommitTiming {
  const timing = new CommitTiming()
  for (let n = 0; n < logins; n += 1) timing.taken(n * interval)
  return timing
}

test('without load a login waits for no other login', () => {
  expect(after(1, 0).waitForOthers(1, 0)).toBe(0)
  expect(after(1000, 10).waitForOthers(1, 0)).toBe(0)
})

test('under load a login waits less than 10 ms, and not at all if ten logins are there', () => {
  const timing = after(1000, 2)
  expect(timing.waitForOthers(1, 0)).toBeGreaterThan(0)
  expect(timing.waitForOthers(1, 0)).toBeLessThan(10)
  expect(timing.waitForOthers(10, 0)).toBe(0)
})

test('the estimate of the load rises within a hundred logins after an idle hour, and falls within 20 s', () => {
  const timing = after(10, 10)
  const hour = 3_600_000
  let logins = 0
  for (; timing.waitForOthers(1, 0) === 0 && logins < 1000; logins += 1) timing.taken(hour + logins)
  expect(logins).toBeLessThan(100)
  for (let n = 1; n <= 20; n += 1) timing.taken(hour + n * 1000)
  expect(timing.waitForOthers(1, 0)).toBe(0)
})

test('logins wait for the transaction in progress, unless a thousand logins wait', () => {
  const timing = after(1, 0)
  expect(timing.waitForOthers(1, 1)).toBeGreaterThan(0)
  expect(timing.waitForOthers(1000, 1)).toBe(0)
})
