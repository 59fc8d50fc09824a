import { describe, expect, test } from 'vitest'
import { FailureDelays } from '../../../src/popup/keeper/failure-delays.ts'
import { LoginIntervals } from '../../../src/popup/keeper/login-intervals.ts'
import { MessageAllowance } from '../../../src/popup/keeper/message-allowance.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import { type IpAddress, parseIpAddress } from '../../../src/wire/ip-address.ts'

const ip = (text: string): IpAddress => {
  const found = parseIpAddress(text)
  if (found === undefined) throw new TypeError(text)
  return found
}
const A = ip('192.0.2.1')
const B = ip('192.0.2.2')

describe('FailureDelays', () => {
  let now = 0
  const make = () => new FailureDelays([2, 4, 8, 15], () => now, new CustomerNetworks())

  test('grow with each failure, up to the last', () => {
    const delays = make()
    expect(delays.delayFor(A, 'ann')).toBe(0)
    const seen = Array.from({ length: 6 }, (_, i) => {
      delays.failed(A, 'ann', `proof ${i}`)
      return delays.delayFor(A, 'ann')
    })
    expect(seen).toEqual([2, 4, 8, 15, 15, 15])
  })

  test('follow the address and the login, and nobody else', () => {
    const delays = make()
    delays.failed(A, 'ann', '1')
    expect(delays.delayFor(A, 'bob')).toBe(2)
    expect(delays.delayFor(B, 'ANN')).toBe(2)
    expect(delays.delayFor(B, 'bob')).toBe(0)
  })

  test('IPv6 addresses of one /64 are one', () => {
    const delays = make()
    delays.failed(ip('2001:db8::1'), 'ann', '1')
    expect(delays.delayFor(ip('2001:db8::ffff:2'), 'bob')).toBe(2)
    expect(delays.delayFor(ip('2001:db8:0:1::1'), 'bob')).toBe(0)
  })

  test('the same wrong password again does not make it worse', () => {
    const delays = make()
    for (let i = 0; i < 5; i++) delays.failed(A, 'ann', 'stale')
    expect(delays.delayFor(A, 'ann')).toBe(2)
  })

  test('who has logged in from his address does not wait for what others do', () => {
    const delays = make()
    delays.succeeded(A, 'ann')
    for (let i = 0; i < 5; i++) delays.failed(B, 'ann', `guess ${i}`)
    expect(delays.delayFor(B, 'ann')).toBe(15)
    expect(delays.delayFor(A, 'ann')).toBe(0)
    // But one good account does not buy the address free for guessing others.
    for (let i = 0; i < 5; i++) delays.failed(A, `victim ${i}`, `guess ${i}`)
    expect(delays.delayFor(A, 'victim 9')).toBe(15)
    delays.failed(A, 'ann', 'typo')
    expect(delays.delayFor(A, 'ann')).toBe(15)
  })

  test('are forgotten ten minutes after the last failure', () => {
    now = 0
    const delays = make()
    delays.failed(A, 'ann', '1')
    now = 600_000
    expect(delays.delayFor(A, 'ann')).toBe(2)
    now = 600_001
    expect(delays.delayFor(A, 'ann')).toBe(0)
  })

  test('the tables are bounded; the oldest rows go first', () => {
    const delays = make()
    for (let i = 0; i < 30_000; i++) delays.failed(ip(`10.${i >> 16}.${(i >> 8) & 255}.${i & 255}`), `login ${i}`, 'x')
    expect(delays.delayFor(ip('10.0.0.0'), 'login 0')).toBe(0)
    expect(delays.delayFor(ip('10.0.117.47'), 'another')).toBe(2)
  })

  test('an empty list of delays means none', () => {
    const delays = new FailureDelays([], () => 0, new CustomerNetworks())
    delays.failed(A, 'ann', '1')
    expect(delays.delayFor(A, 'ann')).toBe(0)
  })
})

test('LoginIntervals: one login of a user in so long', () => {
  let now = 1000
  const intervals = new LoginIntervals(500, () => now)
  expect([intervals.take('ann'), intervals.take('ann'), intervals.take('bob')]).toEqual([true, false, true])
  now = 1499
  expect(intervals.take('ann')).toBe(false)
  now = 1500
  expect(intervals.take('ann')).toBe(true)
  const none = new LoginIntervals(0, () => now)
  expect([none.take('ann'), none.take('ann')]).toEqual([true, true])
})

test('MessageAllowance: a burst, then as many as the time brings', () => {
  let now = 0
  const allowance = new MessageAllowance(10, 3, () => now)
  const taken = () => Array.from({ length: 5 }, () => allowance.take()).filter(Boolean).length
  expect(taken()).toBe(3)
  now = 200
  expect(taken()).toBe(2)
  now = 60_000
  expect(taken()).toBe(3)
})
