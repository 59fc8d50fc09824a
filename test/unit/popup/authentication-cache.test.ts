import { beforeAll, describe, expect, test } from 'vitest'
import { crypt } from '../../../src/libc/accounts.ts'
import { AuthenticationCache } from '../../../src/popup/checkers/password-hash.ts'

/** A hash that is slow enough to be distinguished from a cached result by the clock of the test. */
let slow: string
let other: string
beforeAll(async () => {
  slow = (await crypt('sesame', '$6$rounds=200000$saltsalt$')) ?? ''
  other = (await crypt('tanstaaf', '$6$rounds=200000$saltsalt$')) ?? ''
})

describe('AuthenticationCache', () => {
  let now = 0
  const make = (lifeMs: number) => new AuthenticationCache(lifeMs, () => now)
  /** A cached result is not a promise, because no hash was computed. */
  const isKnown = (passwords: AuthenticationCache, password: string, stored: string): boolean =>
    passwords.verify(password, stored) === true

  test('accepts a right password again until its time ends', async () => {
    const passwords = make(1000)
    now = 5000
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    now += 999
    expect(isKnown(passwords, 'sesame', slow)).toBe(true)
    // A cached result is not a new check: the time runs from the hash.
    now += 1
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
  })

  test('accepts neither another password, nor the same one for another stored hash', async () => {
    const passwords = make(1000)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    for (const wrong of ['Sesame', 'sesame ', '', 'sesam']) expect(isKnown(passwords, wrong, slow)).toBe(false)
    expect(await passwords.verify('tanstaaf', slow)).toBe(false)
    expect(isKnown(passwords, 'sesame', slow)).toBe(true)
    // After a change of the password the old password is wrong at once.
    expect(await passwords.verify('sesame', other)).toBe(false)
    expect(await passwords.verify('sesame', `!${slow}`)).toBeUndefined()
  })

  test('does not cache a failure', async () => {
    const passwords = make(1000)
    expect(await passwords.verify('wrong', slow)).toBe(false)
    expect(isKnown(passwords, 'wrong', slow)).toBe(false)
    expect(await passwords.verify('wrong', slow)).toBe(false)
  })

  test('with a time of 0 caches nothing', async () => {
    const passwords = make(0)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
  })
})
