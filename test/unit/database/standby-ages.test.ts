import { describe, expect, it } from 'vitest'
import { StandbyAges, standbyNames } from '../../../src/database/replication.ts'

const SECOND = 1000
/**
 * A standby whose clock is ahead by `ahead`, as its primary shows it at a time of the watch's
 * clock.
 */
const reply = (name: string, sentAt: number, ahead = 0, pid = 7) => ({ name, pid, replied: sentAt + ahead })
const seen = (ages: StandbyAges, now: number, ...standbys: ReturnType<typeof reply>[]) =>
  ages.observe({ names: standbys.map(({ name }) => name).join(','), standbys }, now)

describe('StandbyAges', () => {
  it.each([-600 * SECOND, 0, 600 * SECOND])('is as old as the last answer, with a clock %i ms ahead', ahead => {
    const ages = new StandbyAges()
    for (let now = 0; now <= 10 * SECOND; now += SECOND) seen(ages, now, reply('n2', now - 20, ahead))
    expect(ages.age(10 * SECOND)).toBeLessThanOrEqual(20)
    // The primary repeats the last answer while time passes.
    seen(ages, 14 * SECOND, reply('n2', 10 * SECOND - 20, ahead))
    expect(ages.age(14 * SECOND)).toBeGreaterThanOrEqual(4 * SECOND - 20)
  })

  it('proves nothing with a first answer, or with one that never changes', () => {
    const ages = new StandbyAges()
    for (let now = 0; now < 5 * SECOND; now += SECOND) {
      seen(ages, now, reply('n2', -3600 * SECOND))
      expect(ages.age(now)).toBe(Number.POSITIVE_INFINITY)
    }
  })

  it('ignores answers that waited in a buffer while the primary was stopped', () => {
    const ages = new StandbyAges()
    for (let now = 0; now <= 10 * SECOND; now += SECOND) seen(ages, now, reply('n2', now))
    // Stopped for 60 s; the standby sent three more answers before it was promoted.
    for (const [index, sent] of [11, 12, 13].entries()) {
      const now = 71 * SECOND + index
      seen(ages, now, reply('n2', sent * SECOND))
      expect(ages.age(now)).toBeGreaterThan(55 * SECOND)
    }
  })

  it('fails when the clock of the standby is set back, and recovers without a manual step', () => {
    const ages = new StandbyAges()
    for (let now = 0; now <= 40 * SECOND; now += SECOND) seen(ages, now, reply('n2', now))
    seen(ages, 41 * SECOND, reply('n2', 41 * SECOND, -300 * SECOND))
    expect(ages.age(41 * SECOND)).toBeGreaterThan(250 * SECOND)
    for (let now = 42 * SECOND; now <= 75 * SECOND; now += SECOND) seen(ages, now, reply('n2', now, -300 * SECOND))
    expect(ages.age(75 * SECOND)).toBe(0)
  })

  it('requires every synchronous standby', () => {
    const ages = new StandbyAges()
    for (let now = 0; now <= 5 * SECOND; now += SECOND) {
      ages.observe({ names: '2 (n2, n3)', standbys: [reply('n2', now), reply('N3', Math.min(now, 2 * SECOND))] }, now)
    }
    expect(ages.age(5 * SECOND)).toBe(3 * SECOND)
    ages.observe({ names: '2 (n2, n3)', standbys: [reply('n2', 6 * SECOND)] }, 6 * SECOND)
    expect(ages.age(6 * SECOND)).toBe(Number.POSITIVE_INFINITY)
  })

  it('starts again with a new connection of the standby', () => {
    const ages = new StandbyAges()
    for (let now = 0; now <= 5 * SECOND; now += SECOND) seen(ages, now, reply('n2', now))
    seen(ages, 6 * SECOND, reply('n2', 6 * SECOND, 0, 8))
    expect(ages.age(6 * SECOND)).toBe(Number.POSITIVE_INFINITY)
    seen(ages, 7 * SECOND, reply('n2', 7 * SECOND, 0, 8))
    expect(ages.age(7 * SECOND)).toBe(0)
  })
})

describe('standbyNames', () => {
  it.each([
    ['', []],
    ['*', []],
    ['n2', ['n2']],
    ['"n2"', ['n2']],
    ['"Node ""two""", n3', ['node "two"', 'n3']],
    ['2 (n2, "n3")', ['n2', 'n3']],
    ['FIRST 1 (n2,n3)', ['n2', 'n3']],
    ['ANY 1 (n2, n3, n4)', ['n2', 'n3', 'n4']],
    ['1 (*)', []],
  ])('%j', (setting, names) => {
    expect(standbyNames(setting)).toEqual(names)
  })
})
