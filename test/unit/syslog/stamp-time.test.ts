import { afterAll, beforeAll, describe, expect, it } from 'vitest'
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

  it('reads years, fractions and unpadded days', () => {
    const now = local(2026, 3, 6)
    expect(stampTime('2024 Mar  5 10:11:12', now)).toBe(local(2024, 3, 5, 10, 11, 12))
    expect(stampTime('Mar  5 2024 10:11:12', now)).toBe(local(2024, 3, 5, 10, 11, 12))
    expect(stampTime('Mar 5 10:11:12.25', now)).toBe(local(2026, 3, 5, 10, 11, 12) + 250)
    expect(stampTime('2026-03-05T10:11:60-0130', now)).toBe(Date.UTC(2026, 2, 5, 11, 42, 0))
  })

  it('gives 29 February to a year that has one', () => {
    expect(stampTime('Feb 29 10:11:12', local(2028, 3, 1))).toBe(local(2028, 2, 29, 10, 11, 12))
    expect(stampTime('Feb 29 10:11:12', local(2029, 1, 1))).toBe(local(2028, 2, 29, 10, 11, 12))
    expect(stampTime('Feb 29 10:11:12', local(2027, 3, 1)), '2027 has no 29 February').toBeUndefined()
  })

  it('reads the first and the last value of each field', () => {
    const now = local(2026, 3, 6)
    expect(stampTime('2026-03-05T00:00:00Z', now)).toBe(Date.UTC(2026, 2, 5))
    expect(stampTime('2026-03-05T23:59:60Z', now)).toBe(Date.UTC(2026, 2, 6))
    expect(stampTime('2026-03-05T10:11:12+23:59', now)).toBe(Date.UTC(2026, 2, 4, 10, 12, 12))
    expect(stampTime('2026-03-05T10:11:12,25Z', now)).toBe(Date.UTC(2026, 2, 5, 10, 11, 12, 250))
    expect(stampTime('2026-03-05T10:11:12.123456789Z', now)).toBe(Date.UTC(2026, 2, 5, 10, 11, 12, 123))
    expect(stampTime('2026-03-05T10:11:12.5', now)).toBe(local(2026, 3, 5, 10, 11, 12) + 500)
    for (const [month, name] of ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun'].entries())
      expect(stampTime(`2025 ${name}  1 00:00:00`, now)).toBe(local(2025, month + 1, 1))
    for (const [month, name] of ['Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec'].entries())
      expect(stampTime(`2025 ${name}  1 00:00:00`, now)).toBe(local(2025, month + 7, 1))
  })

  it('gives a stamp without year this year up to a day after now', () => {
    const now = local(2026, 3, 5, 12)
    expect(stampTime('Mar  6 12:00:00', now)).toBe(local(2026, 3, 6, 12))
    expect(stampTime('Mar  6 12:00:00.001', now)).toBe(local(2025, 3, 6, 12) + 1)
  })

  it.each([
    '2026-03-05T24:00:00Z',
    '2026-03-05T10:60:00Z',
    '2026-03-05T10:11:61Z',
    '2026-03-05T10:11:12+24:00',
    '2026-03-05T10:11:12-23:60',
    '2026-02-30T10:11:12Z',
    '2026-00-05T10:11:12Z',
    '2026-03-00T10:11:12Z',
    '2026-03-05T24:00:00',
    'x2026-03-05T10:11:12Z',
    '2026-03-05T10:11:12Zx',
    'xMar  5 10:11:12',
    'Mar  5 10:11:12x',
    'Mar 32 10:11:12',
    'Mar  5 24:11:12',
    '2026 Mar  5 2026 10:11:12',
  ])('%j names no time', stamp => {
    expect(stampTime(stamp, local(2026, 3, 6))).toBeUndefined()
  })

  it.each([
    '',
    '-',
    'Foo  1 00:00:00',
    '2026-99-05T10:11:12Z',
    '2026 Mar  5 2026 10:11:12',
    '2026-03-05T10:11:12+2460',
  ])('%j is not a time', stamp => {
    expect(stampTime(stamp, 0)).toBeUndefined()
  })
})

const inZone = (name: string): void => {
  const zone = process.env['TZ']
  beforeAll(() => {
    process.env['TZ'] = name
  })
  afterAll(() => {
    if (zone === undefined) delete process.env['TZ']
    else process.env['TZ'] = zone
  })
}

describe('the hour that the end of summer time repeats', () => {
  inZone('Europe/Berlin')

  // 2026-10-25: at 01:00 UTC the clocks go back from 03:00 to 02:00.
  const stamp = 'Oct 25 02:30:00'
  it('is read as the first one during the first one, then as the second one', () => {
    expect(stampTime(stamp, Date.UTC(2026, 9, 25, 0, 30, 1))).toBe(Date.UTC(2026, 9, 25, 0, 30))
    expect(stampTime(stamp, Date.UTC(2026, 9, 25, 1, 30, 1))).toBe(Date.UTC(2026, 9, 25, 1, 30))
    expect(stampTime(stamp, Date.UTC(2026, 9, 25, 1, 30))).toBe(Date.UTC(2026, 9, 25, 1, 30))
    expect(stampTime('2026-07-05T10:11:12', 0)).toBe(Date.UTC(2026, 6, 5, 8, 11, 12))
    expect(stampTime('2026-07-05T10:11:12Z', 0)).toBe(Date.UTC(2026, 6, 5, 10, 11, 12))
    expect(stampTime('Oct 25 03:30:00', Date.UTC(2026, 9, 25, 2, 30, 1))).toBe(Date.UTC(2026, 9, 25, 2, 30))
    expect(stampTime('Oct 25 01:30:00', Date.UTC(2026, 9, 25, 2, 30, 1))).toBe(Date.UTC(2026, 9, 24, 23, 30))
  })
})

describe('summer time of half an hour', () => {
  inZone('Australia/Lord_Howe')

  // 2026-04-04: at 15:00 UTC the clocks go back from 02:00 to 01:30.
  it('repeats half an hour', () => {
    const later = Date.UTC(2026, 3, 4, 18)
    expect(stampTime('Apr  5 01:15:00', later), 'this local time occurs once').toBe(Date.UTC(2026, 3, 4, 14, 15))
    expect(stampTime('Apr  5 01:45:00', later)).toBe(Date.UTC(2026, 3, 4, 15, 15))
    expect(stampTime('Apr  5 01:45:00', Date.UTC(2026, 3, 4, 15))).toBe(Date.UTC(2026, 3, 4, 14, 45))
  })

  // 2026-10-03: at 15:30 UTC the clocks go forward from 02:00 to 02:30.
  it('begins without a repetition', () => {
    expect(stampTime('Oct  4 01:45:00', Date.UTC(2026, 9, 3, 18))).toBe(Date.UTC(2026, 9, 3, 15, 15))
  })
})

describe('a day that a country left out', () => {
  inZone('Pacific/Apia')

  it('repeats no hour of the day before', () => {
    expect(stampTime('2011-12-29 23:30:00', Date.UTC(2012, 0, 1))).toBe(Date.UTC(2011, 11, 30, 9, 30))
  })
})
