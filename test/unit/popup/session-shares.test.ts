import { expect, test } from 'vitest'
import { SessionShares } from '../../../src/popup/login/session-shares.ts'

let now = 0
const shares = (perLogin: number, perOwner: number) => new SessionShares<string>({ perLogin, perOwner }, () => now)

test('one login has no more sessions than its share, in upper or lower case, and other logins have separate shares', () => {
  const count = shares(2, 100)
  expect(count.take('a', 'ann', '1')).toBe('ok')
  expect(count.take('b', 'ANN', '1')).toBe('ok')
  expect(count.take('c', 'ann', '1')).toMatchObject({ reason: 'max_per_login' })
  expect(count.take('d', 'bob', '1')).toBe('ok')
  count.release('a')
  count.release('a')
  expect(count.take('c', 'ann', '1')).toBe('ok')
  expect(count.take('e', 'ann', '1')).toMatchObject({ reason: 'max_per_login' })
})

test('the dot behind a domain does not make another login', () => {
  const count = shares(1, 100)
  expect(count.take('a', 'ann@example.org', '1')).toBe('ok')
  expect(count.take('b', 'Ann@example.org.', '1')).toMatchObject({ reason: 'max_per_login' })
})

test('one owner has no more sessions than its share over all its logins', () => {
  const count = shares(100, 3)
  for (let i = 0; i < 3; i++) expect(count.take(`session ${i}`, `login ${i}`, '5000')).toBe('ok')
  expect(count.take('next', 'login 9', '5000')).toMatchObject({ reason: 'max_per_owner' })
  expect(count.take('next', 'login 9', '5001')).toBe('ok')
  // Without an owner only the login counts.
  expect(count.take('behind', 'login 9', undefined)).toBe('ok')
  count.release('session 1')
  expect(count.take('another', 'login 9', '5000')).toBe('ok')
})

test('a session that takes a share twice has one', () => {
  const count = shares(1, 1)
  expect([count.take('a', 'ann', '1'), count.take('a', 'ann', '1')]).toEqual(['ok', 'ok'])
  // A refused session has no share.
  expect(count.take('b', 'ann', '1')).not.toBe('ok')
  count.release('b')
  count.release('a')
  expect(count.take('b', 'ann', '1')).toBe('ok')
})

test('a refusal is logged once a minute for each login', () => {
  const count = shares(0, 0)
  const isDue = (login: string) => {
    const taken = count.take('a', login, undefined)
    return taken !== 'ok' && taken.isDue
  }
  expect([isDue('ann'), isDue('ann'), isDue('bob')]).toEqual([true, false, true])
  now += 59_999
  expect(isDue('ann')).toBe(false)
  now += 1
  expect(isDue('ann')).toBe(true)
})
