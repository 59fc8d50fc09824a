import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ConnectionLimits } from '../../../src/process/connection-limits.ts'
import { CustomerNetworks } from '../../../src/wire/customer-networks.ts'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import { ip } from '../../harness/addresses.ts'
import { anyIpAddress } from '../wire/arbitraries.ts'

test('one address is refused, another is not', () => {
  const limits = new ConnectionLimits(10, 2, new CustomerNetworks())
  expect([1, 2, 3].map(() => limits.acquire(ip('192.0.2.7')))).toEqual(['ok', 'ok', 'address'])
  expect(limits.acquire(ip('192.0.2.8'))).toBe('ok')
  limits.release(ip('192.0.2.7'))
  expect(limits.acquire(ip('192.0.2.7'))).toBe('ok')
})

test('IPv6 counts per /64, in every spelling of the address', () => {
  const limits = new ConnectionLimits(0, 1, new CustomerNetworks())
  expect(limits.acquire(ip('2001:db8::1'))).toBe('ok')
  expect(limits.acquire(ip('2001:db8:0:0:ffff::2'))).toBe('address')
  expect(limits.acquire(ip('2001:db8:0:1::1'))).toBe('ok')
})

test('clients behind a translator are separate customers, the same as over IPv4', () => {
  const limits = new ConnectionLimits(0, 1, new CustomerNetworks())
  expect(limits.acquire(ip('64:ff9b::192.0.2.7'))).toBe('ok')
  expect(limits.acquire(ip('64:ff9b::192.0.2.8'))).toBe('ok')
  expect(limits.acquire(ip('192.0.2.7'))).toBe('address')
  limits.release(ip('64:ff9b::192.0.2.7'))
  expect(limits.acquire(ip('192.0.2.7'))).toBe('ok')
})

test("a place is returned to the right customer, also if the translators' prefixes have changed meanwhile", () => {
  const limits = new ConnectionLimits(0, 2, new CustomerNetworks())
  const behind = ip('2001:db8:64::192.0.2.7')
  expect(limits.acquire(behind)).toBe('ok')
  limits.change(0, 2, new CustomerNetworks([{ base: ip('2001:db8:64::'), prefixLength: 96 }]))
  expect(limits.acquire(behind)).toBe('ok')
  limits.release(behind)
  limits.release(behind)
  expect(limits.total).toBe(0)
  expect(() => limits.release(behind)).toThrow()
  expect([1, 2, 3].map(() => limits.acquire(behind))).toEqual(['ok', 'ok', 'address'])
  expect(limits.acquire(ip('192.0.2.7'))).toBe('address')
})

test('the total is checked first; 0 means no limit', () => {
  const limits = new ConnectionLimits(1, 0, new CustomerNetworks())
  expect(limits.acquire(ip('192.0.2.7'))).toBe('ok')
  expect(limits.acquire(ip('192.0.2.8'))).toBe('total')
  const none = new ConnectionLimits(0, 0, new CustomerNetworks())
  expect(Array.from({ length: 100 }, () => none.acquire(ip('192.0.2.7'))).every(verdict => verdict === 'ok')).toBe(true)
})

test('a place that was not taken cannot be returned', () => {
  const limits = new ConnectionLimits(1, 1, new CustomerNetworks())
  expect(() => limits.release(ip('192.0.2.7'))).toThrow()
  expect(limits.total).toBe(0)
})

test('for any order of connections the counts stay within the limits and return to zero', () => {
  const step = fc.record({ enter: fc.boolean(), place: fc.nat(4) })
  const clients = fc.array(anyIpAddress, { minLength: 5, maxLength: 5 })
  fc.assert(
    fc.property(clients, fc.array(step, { maxLength: 200 }), (addresses, steps) => {
      const limits = new ConnectionLimits(7, 3, new CustomerNetworks())
      const inside: IpAddress[] = []
      for (const { enter, place } of steps) {
        const client = addresses[place] ?? expect.unreachable()
        if (enter) {
          if (limits.acquire(client) === 'ok') inside.push(client)
        } else {
          const leaving = inside.pop()
          if (leaving !== undefined) limits.release(leaving)
        }
        expect(limits.total).toBe(inside.length)
        expect(inside.length).toBeLessThanOrEqual(7)
        expect(inside.filter(address => address === client).length).toBeLessThanOrEqual(3)
      }
      for (const client of inside) limits.release(client)
      expect(limits.total).toBe(0)
      for (const client of new Set(addresses)) expect(limits.acquire(client)).not.toBe('total')
    }),
  )
})
