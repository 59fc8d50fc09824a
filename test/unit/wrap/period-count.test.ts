import fc from 'fast-check'
import { expect, test } from 'vitest'
import { PeriodCount } from '../../../src/wrap/mail-counts.ts'

const HOUR = 3_600_000

test('allows the limit within an hour, then nothing, and the limit again later', () => {
  let now = 1000 * HOUR
  const rate = new PeriodCount(3, () => now)
  for (let i = 0; i < 3; i++) {
    expect(rate.allows('ann')).toBe(true)
    rate.add('ann')
  }
  expect(rate.allows('ann')).toBe(false)
  expect(rate.allows('bob')).toBe(true)
  now += 2 * HOUR
  expect(rate.allows('ann')).toBe(true)
})

test('allows the limit once around the full hour, not twice', () => {
  let now = 1000 * HOUR + HOUR - 1000
  const rate = new PeriodCount(10, () => now)
  for (let i = 0; i < 10; i++) rate.add('ann')
  now += 2000
  expect(rate.allows('ann')).toBe(false)
  now += HOUR / 2
  expect(rate.allows('ann')).toBe(true)
})

test('0 means no limit', () => {
  const rate = new PeriodCount(0, () => 0)
  for (let i = 0; i < 1000; i++) rate.add('ann')
  expect(rate.allows('ann')).toBe(true)
})

test('allows exactly the limit within one hour, at any times', () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 20 }), fc.array(fc.nat(HOUR - 1), { maxLength: 60 }), (limit, times) => {
      let now = 0
      const rate = new PeriodCount(limit, () => now)
      let taken = 0
      for (const time of times.toSorted((a, b) => a - b)) {
        now = 500 * HOUR + time
        if (!rate.allows('ann')) continue
        rate.add('ann')
        taken += 1
      }
      expect(taken).toBe(Math.min(limit, times.length))
    }),
  )
})

test('memory is limited: the oldest key is dropped', () => {
  const rate = new PeriodCount(1, () => 0)
  rate.add('first')
  for (let i = 0; i < 50_000; i++) rate.add(`key${i}`)
  expect(rate.allows('first')).toBe(true)
  expect(rate.allows('key49999')).toBe(false)
})
