import { describe, expect, test } from 'vitest'
import { FailureDelays, LoginIntervals } from '../../../src/popup/monitor/login-delays.ts'
import { MessageAllowance } from '../../../src/popup/monitor/login-processes.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import { type LoginText, loginOctets, loginText } from '../../../src/wire/login-event.ts'
import { ip } from '../../harness/addresses.ts'

/** The text of a login name that a client sends in UTF-8. */
const name = (text: string): LoginText => loginText(loginOctets(Buffer.from(text, 'utf8').toString('latin1')))
const ANN = name('ann')
const BOB = name('bob')
const A = ip('192.0.2.1')
const B = ip('192.0.2.2')

describe('FailureDelays', () => {
  let now = 0
  const make = () => new FailureDelays([2, 4, 8, 15], () => now, new CustomerNetworks())
  /** `count` logins fail from one address. */
  const failMany = (delays: FailureDelays, address: IpAddress, count: number): void => {
    for (let i = 0; i < count; i++) delays.failed(address, name(`victim ${i}`), `guess ${i}`)
  }

  test('grow with each failure of a login, up to the last value', () => {
    const delays = make()
    expect(delays.delayFor(A, ANN)).toBe(0)
    const seen = Array.from({ length: 6 }, (_, i) => {
      delays.failed(A, ANN, `proof ${i}`)
      return delays.delayFor(A, ANN)
    })
    expect(seen).toEqual([2, 4, 8, 15, 15, 15])
  })

  test('apply to the login at every address, also in upper case', () => {
    const delays = make()
    delays.failed(A, ANN, '1')
    expect(delays.delayFor(B, name('ANN'))).toBe(2)
    expect(delays.delayFor(B, BOB)).toBe(0)
  })

  test('grow with the logins that fail from an address, from the fourth one on', () => {
    const seen = [3, 4, 5, 6, 7, 20].map(count => {
      const delays = make()
      failMany(delays, A, count)
      return delays.delayFor(A, BOB)
    })
    expect(seen).toEqual([0, 2, 4, 8, 15, 15])
  })

  test('a device behind a NAT that tries old passwords without end delays no other login there', () => {
    const delays = make()
    for (let i = 0; i < 100; i++) {
      now += 60_000
      delays.failed(A, ANN, `APOP digest ${i}`)
      expect(delays.delayFor(A, BOB)).toBe(0)
    }
    expect(delays.delayFor(A, ANN)).toBe(15)
    now = 0
  })

  test('IPv6 addresses of one /64 are one, and a /48 waits from its seventeenth login on', () => {
    const delays = make()
    failMany(delays, ip('2001:db8::1'), 4)
    expect(delays.delayFor(ip('2001:db8::ffff:2'), BOB)).toBe(2)
    expect(delays.delayFor(ip('2001:db8:0:1::1'), BOB)).toBe(0)
    const spread = make()
    for (let i = 0; i < 17; i++) {
      expect(spread.delayFor(ip('2001:db8:7:ff::1'), BOB)).toBe(0)
      spread.failed(ip(`2001:db8:7:${i.toString(16)}::1`), name(`victim ${i}`), 'guess')
    }
    expect(spread.delayFor(ip('2001:db8:7:ff::1'), BOB)).toBe(2)
    expect(spread.delayFor(ip('2001:db8:8:ff::1'), BOB)).toBe(0)
  })

  test('clients behind a translator do not wait for each other', () => {
    const delays = make()
    failMany(delays, ip('64:ff9b::c000:201'), 20)
    expect(delays.delayFor(ip('64:ff9b::c000:201'), BOB)).toBe(15)
    expect(delays.delayFor(ip('64:ff9b::c000:202'), BOB)).toBe(0)
  })

  test('the same wrong passwords again, in any order, do not increase it', () => {
    const delays = make()
    for (let i = 0; i < 10; i++) delays.failed(A, ANN, `stale ${i % 2}`)
    expect(delays.delayFor(B, ANN)).toBe(4)
    delays.succeeded(A, ANN)
    delays.failed(A, ANN, 'stale 1')
    expect(delays.delayFor(B, ANN)).toBe(0)
  })

  test('a login that succeeded from its address is not delayed by failures of other addresses', () => {
    const delays = make()
    delays.succeeded(A, ANN)
    for (let i = 0; i < 5; i++) delays.failed(B, ANN, `guess ${i}`)
    expect(delays.delayFor(B, ANN)).toBe(15)
    expect(delays.delayFor(A, ANN)).toBe(0)
    // One right login does not exempt the address for guesses of other logins.
    failMany(delays, A, 7)
    expect(delays.delayFor(A, name('victim 9'))).toBe(15)
    expect(delays.delayFor(A, ANN)).toBe(0)
  })

  test('three different wrong passwords in a row end this exemption, one repeated password never does', () => {
    const delays = make()
    delays.succeeded(A, ANN)
    for (let i = 0; i < 9; i++) delays.failed(A, ANN, 'stale')
    expect(delays.isKnown(A, ANN)).toBe(true)
    delays.succeeded(A, ANN)
    for (const guess of ['1', '2']) delays.failed(A, ANN, guess)
    expect(delays.delayFor(A, ANN)).toBe(0)
    delays.failed(A, ANN, '3')
    expect(delays.isKnown(A, ANN)).toBe(false)
    expect(delays.delayFor(A, ANN)).toBe(8)
  })

  test('are dropped ten minutes after the last failure', () => {
    now = 0
    const delays = make()
    delays.failed(A, ANN, '1')
    failMany(delays, B, 4)
    now = 600_000
    expect([delays.delayFor(A, ANN), delays.delayFor(B, BOB)]).toEqual([2, 2])
    now = 600_001
    expect([delays.delayFor(A, ANN), delays.delayFor(B, BOB)]).toEqual([0, 0])
    now = 0
  })

  test('the tables are limited; the oldest rows are dropped first', () => {
    const delays = make()
    for (let i = 0; i < 30_000; i++) {
      delays.failed(ip(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`), name(`login ${i}`), 'x')
    }
    expect(delays.delayFor(B, name('login 0'))).toBe(0)
    expect(delays.delayFor(B, name('login 29999'))).toBe(2)
  })

  test('count the failures from before a reload against the new list', () => {
    const delays = make()
    delays.failed(A, ANN, '1')
    delays.failed(A, ANN, '2')
    delays.use([10, 20, 30], new CustomerNetworks())
    expect([delays.delayFor(A, ANN), delays.delayFor(B, ANN), delays.delayFor(A, BOB)]).toEqual([20, 20, 0])
    delays.use([], new CustomerNetworks())
    expect(delays.delayFor(A, ANN)).toBe(0)
  })

  test('an empty list of delays means none, and so does 0', () => {
    for (const list of [[], [0]]) {
      const delays = new FailureDelays(list, () => 0, new CustomerNetworks())
      delays.failed(A, ANN, '1')
      expect(delays.delayFor(A, ANN)).toBe(0)
    }
  })
})

describe('LoginIntervals', () => {
  let now = 0
  const make = (minimum: number) => {
    now = 1000
    return new LoginIntervals(minimum, () => now)
  }
  const mayLogIn = (intervals: LoginIntervals, login = ANN): boolean => intervals.take(login) !== undefined

  test('one session of a user in each interval', () => {
    const intervals = make(500)
    intervals.take(ANN)?.sessionBegan()
    expect([mayLogIn(intervals), mayLogIn(intervals, BOB)]).toEqual([false, true])
    now = 1499
    expect(mayLogIn(intervals)).toBe(false)
    now = 1500
    intervals.take(ANN)?.sessionBegan()
    intervals.use(2000)
    now = 3400
    expect(mayLogIn(intervals)).toBe(false)
    intervals.use(0)
    expect(mayLogIn(intervals)).toBe(true)
  })

  test('an interval of 0 admits every login', () => {
    const none = make(0)
    expect([mayLogIn(none), mayLogIn(none)]).toEqual([true, true])
  })

  test('the interval counts from the session, not from the login', () => {
    const intervals = make(500)
    const login = intervals.take(ANN)
    now = 1400
    login?.sessionBegan()
    now = 1899
    expect(mayLogIn(intervals)).toBe(false)
    now = 1900
    expect(mayLogIn(intervals)).toBe(true)
  })

  test('a login that gets no session does not count', () => {
    const intervals = make(60_000)
    intervals.take(ANN)?.sessionRefused()
    const login = intervals.take(ANN)
    login?.sessionBegan()
    login?.sessionRefused()
    expect(mayLogIn(intervals)).toBe(true)
  })

  test('of simultaneous logins one is admitted, until its ticket has expired', () => {
    const intervals = make(600_000)
    expect([mayLogIn(intervals), mayLogIn(intervals)]).toEqual([true, false])
    now = 1000 + 30_999
    expect(mayLogIn(intervals)).toBe(false)
    now = 1000 + 31_000
    expect([mayLogIn(intervals), mayLogIn(intervals)]).toEqual([true, false])
  })

  test('the report about an older login does not end the interval of a newer one', () => {
    const intervals = make(600_000)
    const older = intervals.take(ANN)
    now = 100_000
    intervals.take(ANN)?.sessionBegan()
    older?.sessionRefused()
    expect(mayLogIn(intervals)).toBe(false)
  })

  test('a login in capitals is the same login', () => {
    const intervals = make(500)
    intervals.take(ANN)?.sessionBegan()
    expect(mayLogIn(intervals, name('ANN'))).toBe(false)
  })
})

test('MessageAllowance: a burst, then the number that the time allows', () => {
  let now = 0
  const allowance = new MessageAllowance(10, 3, () => now)
  const taken = () => Array.from({ length: 5 }, () => allowance.take()).filter(Boolean).length
  expect(taken()).toBe(3)
  now = 200
  expect(taken()).toBe(2)
  now = 60_000
  expect(taken()).toBe(3)
  // In octets: the rest of the allowance, or nothing.
  now += 200
  expect([allowance.take(3), allowance.take(2), allowance.take(1)]).toEqual([false, true, false])
})
