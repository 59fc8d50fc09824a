import { beforeAll, describe, expect, test } from 'vitest'
import { crypt } from '../../../src/libc/accounts.ts'
import { AuthenticationCache } from '../../../src/popup/checkers/password-hash.ts'

/** A hash that takes long enough to be told from none at all by the clock of the test. */
let slow: string
let other: string
beforeAll(async () => {
  slow = (await crypt('sesame', '$6$rounds=200000$saltsalt$')) ?? ''
  other = (await crypt('tanstaaf', '$6$rounds=200000$saltsalt$')) ?? ''
})

describe('AuthenticationCache', () => {
  let now = 0
  const make = (lifeMs: number) => new AuthenticationCache(lifeMs, () => now)
  /** What is known at once is no promise: no hash was made. */
  const isKnown = (passwords: AuthenticationCache, password: string, stored: string): boolean =>
    passwords.verify(password, stored) === true

  test('knows a right password again until its time ends', async () => {
    const passwords = make(1000)
    now = 5000
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    now += 999
    expect(isKnown(passwords, 'sesame', slow)).toBe(true)
    // Being known again is no new check: the time runs from the hash.
    now += 1
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
  })

  test('knows neither another password, nor the same one for another stored hash', async () => {
    const passwords = make(1000)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    for (const wrong of ['Sesame', 'sesame ', '', 'sesam']) expect(isKnown(passwords, wrong, slow)).toBe(false)
    expect(await passwords.verify('tanstaaf', slow)).toBe(false)
    expect(isKnown(passwords, 'sesame', slow)).toBe(true)
    // The password was changed: the old password is wrong at once.
    expect(await passwords.verify('sesame', other)).toBe(false)
    expect(await passwords.verify('sesame', `!${slow}`)).toBeUndefined()
  })

  test('remembers no failure', async () => {
    const passwords = make(1000)
    expect(await passwords.verify('wrong', slow)).toBe(false)
    expect(isKnown(passwords, 'wrong', slow)).toBe(false)
    expect(await passwords.verify('wrong', slow)).toBe(false)
  })

  test('of no time at all remembers nothing', async () => {
    const passwords = make(0)
    expect(await passwords.verify('sesame', slow)).toBe(true)
    expect(isKnown(passwords, 'sesame', slow)).toBe(false)
  })
})
