import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { RestartDelay, Restarts } from '../../../src/base/restarts.ts'

beforeEach(() => void vi.useFakeTimers())
afterEach(() => void vi.useRealTimers())

test('the wait grows to 10 s, and is the first again after a run of a minute', () => {
  const delay = new RestartDelay()
  expect([1, 2, 3].map(() => delay.next(100))).toEqual([100, 200, 400])
  for (let i = 0; i < 10; i++) delay.next(100)
  expect(delay.next(59_999)).toBe(10_000)
  expect(delay.next(60_000)).toBe(100)
})

test('a process that ends is started after the wait, at once if it ended in order', () => {
  let now = 0
  const starts: number[] = []
  const restarts = new Restarts(
    () => {
      starts.push(now)
      restarts.began()
    },
    () => now,
  )
  const pass = (ms: number): void => {
    now += ms
    vi.advanceTimersByTime(ms)
  }
  restarts.began()
  pass(50)
  expect(restarts.schedule()).toBe(100)
  expect(restarts.isScheduled).toBe(true)
  pass(99)
  expect(starts).toEqual([])
  pass(1)
  expect(starts).toEqual([150])
  expect(restarts.isScheduled).toBe(false)
  expect(restarts.schedule()).toBe(200)
  pass(200)
  expect(restarts.schedule({ inOrder: true })).toBe(0)
  pass(0)
  expect(starts).toEqual([150, 350, 350])
  // The count of failures began anew.
  expect(restarts.schedule()).toBe(100)
})

test('only one start is scheduled, and none after cancel', () => {
  const start = vi.fn()
  const restarts = new Restarts(start, () => 0)
  restarts.schedule()
  restarts.schedule()
  vi.advanceTimersByTime(1_000)
  expect(start).toHaveBeenCalledTimes(1)
  restarts.schedule()
  restarts.cancel()
  restarts.schedule()
  vi.advanceTimersByTime(60_000)
  expect(start).toHaveBeenCalledTimes(1)
})
