import { expect, test } from 'vitest'
import { DailyHints } from '../../../src/base/log.ts'

const HOUR = 3_600_000

test('a hint is due once a day for each key', () => {
  let now = 0
  const hints = new DailyHints(() => now)
  expect(['a', 'a', 'b', 'a'].map(key => hints.isDue(key))).toEqual([true, false, true, false])
  now = 23 * HOUR
  expect(hints.isDue('a')).toBe(false)
  now = 24 * HOUR
  expect(['a', 'a', 'b'].map(key => hints.isDue(key))).toEqual([true, false, true])
})

test('ten thousand keys are kept, and the oldest is dropped first', () => {
  const hints = new DailyHints(() => 0)
  for (let key = 0; key < 10_001; key += 1) expect(hints.isDue(`${key}`)).toBe(true)
  expect(hints.isDue('10000')).toBe(false)
  expect(hints.isDue('1')).toBe(false)
  expect(hints.isDue('0')).toBe(true)
})
