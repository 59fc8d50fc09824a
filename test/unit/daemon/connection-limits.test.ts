import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ConnectionLimits } from '../../../src/daemon/connection-limits.ts'
import { type IpAddress, parseIpAddress } from '../../../src/wire/ip-address.ts'
import { anyIpAddress } from '../wire/arbitraries.ts'

const ip = (text: string): IpAddress => parseIpAddress(text) ?? expect.unreachable(text)

test('one address is stopped, another is not', () => {
  const limits = new ConnectionLimits(10, 2)
  expect([1, 2, 3].map(() => limits.acquire(ip('192.0.2.7')))).toEqual(['ok', 'ok', 'address'])
  expect(limits.acquire(ip('192.0.2.8'))).toBe('ok')
  limits.release(ip('192.0.2.7'))
  expect(limits.acquire(ip('192.0.2.7'))).toBe('ok')
})

test('IPv6 counts per /64, in whatever spelling', () => {
  const limits = new ConnectionLimits(0, 1)
  expect(limits.acquire(ip('2001:db8::1'))).toBe('ok')
  expect(limits.acquire(ip('2001:db8:0:0:ffff::2'))).toBe('address')
  expect(limits.acquire(ip('2001:db8:0:1::1'))).toBe('ok')
})

test('the total comes first; 0 is no limit', () => {
  const limits = new ConnectionLimits(1, 0)
  expect(limits.acquire(ip('192.0.2.7'))).toBe('ok')
  expect(limits.acquire(ip('192.0.2.8'))).toBe('total')
  const none = new ConnectionLimits(0, 0)
  expect(Array.from({ length: 100 }, () => none.acquire(ip('192.0.2.7'))).every(verdict => verdict === 'ok')).toBe(true)
})

test('a place given back twice is a mistake of ours', () => {
  const limits = new ConnectionLimits(1, 1)
  expect(() => limits.release(ip('192.0.2.7'))).toThrow()
  expect(limits.total).toBe(0)
})

test('whatever comes and goes, the counts stay within the limits and end at nothing', () => {
  const step = fc.record({ enter: fc.boolean(), who: fc.nat(4) })
  const guests = fc.array(anyIpAddress, { minLength: 5, maxLength: 5 })
  fc.assert(
    fc.property(guests, fc.array(step, { maxLength: 200 }), (addresses, steps) => {
      const limits = new ConnectionLimits(7, 3)
      const inside: IpAddress[] = []
      for (const { enter, who } of steps) {
        const guest = addresses[who] ?? expect.unreachable()
        if (enter) {
          if (limits.acquire(guest) === 'ok') inside.push(guest)
        } else {
          const leaving = inside.pop()
          if (leaving !== undefined) limits.release(leaving)
        }
        expect(limits.total).toBe(inside.length)
        expect(inside.length).toBeLessThanOrEqual(7)
        expect(inside.filter(address => address === guest).length).toBeLessThanOrEqual(3)
      }
      for (const guest of inside) limits.release(guest)
      expect(limits.total).toBe(0)
      for (const guest of new Set(addresses)) expect(limits.acquire(guest)).not.toBe('total')
    }),
  )
})
