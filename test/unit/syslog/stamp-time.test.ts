import { describe, expect, it } from 'vitest'
import { stampTime } from '../../../src/syslog/stamp-time.ts'

const local = (year: number, month: number, day: number, hour = 0, minute = 0, second = 0): number =>
  new Date(year, month - 1, day, hour, minute, second).getTime()

describe('stampTime', () => {
  it('reads stamps with a zone, and without one as local time', () => {
    expect(stampTime('2026-03-05T10:11:12.5+01:00', 0)).toBe(Date.UTC(2026, 2, 5, 9, 11, 12, 500))
    expect(stampTime('2026-03-05 10:11:12', 0)).toBe(local(2026, 3, 5, 10, 11, 12))
  })

  it('gives a stamp without year the latest year that is not in the future', () => {
    const now = local(2026, 1, 1, 0, 0, 5)
    expect(stampTime('Dec 31 23:59:58', now)).toBe(local(2025, 12, 31, 23, 59, 58))
    expect(stampTime('Jan  1 00:00:04', now)).toBe(local(2026, 1, 1, 0, 0, 4))
    expect(stampTime('Jan 02 00:00:04', now), 'clocks differ by less than a day').toBe(local(2026, 1, 2, 0, 0, 4))
    expect(stampTime('Jan  1 00:00:01', local(2025, 12, 31, 23, 59, 59))).toBe(local(2026, 1, 1, 0, 0, 1))
  })

  it.each(['', '-', 'Foo  1 00:00:00', '2026-99-05T10:11:12Z'])('%j says nothing', stamp => {
    expect(stampTime(stamp, 0)).toBeUndefined()
  })
})
