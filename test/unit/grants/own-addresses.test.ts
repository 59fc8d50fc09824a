import { type NetworkInterfaceInfo, networkInterfaces } from 'node:os'
import { expect, it } from 'vitest'
import { ownAddresses } from '../../../src/grants/never-list.ts'

const address = (text: string): NetworkInterfaceInfo => ({
  address: text,
  family: 'IPv4',
  netmask: '255.255.255.0',
  mac: '00:00:00:00:00:00',
  internal: false,
  cidr: null,
})

it('a new or removed address is known after two seconds at most, also when the clock is set back', () => {
  let now = 1_000_000
  let reads = 0
  let interfaces: NodeJS.Dict<NetworkInterfaceInfo[]> = {}
  const own = ownAddresses(
    () => {
      reads += 1
      return interfaces
    },
    () => now,
  )
  interfaces = { lo: [address('127.0.0.1')], eth0: [address('192.0.2.7'), address('fe80::1'), address('2001:DB8::7')] }
  expect([...own()]).toEqual(['192.0.2.7', 'fe80::1', '2001:db8::7'])
  interfaces = { eth0: [address('192.0.2.8')] }
  now += 1999
  expect([...own()]).toContain('192.0.2.7')
  now += 1
  expect([...own()]).toEqual(['192.0.2.8'])
  interfaces = {}
  now -= 3_600_000
  expect([...own()]).toEqual([])
  expect(reads).toBe(3)
})

it('the addresses of this host, without loopback', () => {
  const known = [...ownAddresses(networkInterfaces, Date.now)()]
  expect(known).not.toContain('127.0.0.1')
  expect(known).not.toContain('::1')
})
