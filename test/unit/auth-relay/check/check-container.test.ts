import { mkdirSync, writeFileSync } from 'node:fs'
import type { NetworkInterfaceInfo } from 'node:os'
import { afterAll, expect, test } from 'vitest'
import { checkContainer } from '../../../../src/auth-relay/check/check-container.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { temporaryDirectory } from '../../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)

const mark = `${path}/containerenv`
writeFileSync(mark, '')

/** A device in sysfs; the other end of a `pair` is in another namespace. */
function device(name: string, kind: 'pair' | 'card' | 'macvlan' | 'tap'): void {
  mkdirSync(`${path}/${name}${kind === 'card' ? '/device' : ''}`, { recursive: true })
  writeFileSync(`${path}/${name}/ifindex`, '2\n')
  writeFileSync(`${path}/${name}/iflink`, kind === 'pair' || kind === 'macvlan' ? '10\n' : '2\n')
  writeFileSync(
    `${path}/${name}/uevent`,
    `${kind === 'macvlan' ? 'DEVTYPE=macvlan\n' : ''}INTERFACE=${name}\nIFINDEX=2\n`,
  )
}
device('eth0', 'pair')
device('ens1', 'card')
device('lan0', 'macvlan')
device('tap0', 'tap')

/** The default routes of a device as Linux prints them: 10.89.0.1 and fdbe:4cf4:9d5a::1. */
function route(name: string): void {
  writeFileSync(
    `${path}/route`,
    `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
${name}\t00000000\t0100590A\t0003\t0\t0\t100\t00000000\t0\t0\t0
${name}\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
`,
  )
  writeFileSync(
    `${path}/ipv6_route`,
    `fdbe4cf49d5a00000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     ${name}
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fdbe4cf49d5a00000000000000000001 00000400 00000003 00000000 00000003     ${name}
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`,
  )
}

const addresses: NetworkInterfaceInfo[] = [
  { family: 'IPv4', address: '10.89.0.8', netmask: '255.255.255.0', cidr: '10.89.0.8/24', mac: '', internal: false },
  {
    ...{ family: 'IPv6', address: 'fdbe:4cf4:9d5a::8', netmask: 'ffff:ffff:ffff:ffff::', scopeid: 0 },
    ...{ cidr: 'fdbe:4cf4:9d5a::8/64', mac: '', internal: false },
  },
  {
    ...{ family: 'IPv6', address: 'fe80::8', netmask: 'ffff:ffff:ffff:ffff::', scopeid: 2 },
    ...{ cidr: 'fe80::8/64', mac: '', internal: false },
  },
]

const WHY = "with a rootless network or docker's userland proxy every client has such an address"

function findingsOf(grants: string, name = 'eth0', marks = [mark]): readonly string[] {
  const { settings } = parseSettings(`configured = true\n[grants]\n${grants}\n`, 'auth-relay.toml')
  route(name)
  const surroundings = { marks, routes: path, devices: path, interfaces: () => ({ [name]: addresses }) }
  return checkContainer(settings, surroundings).map(({ verdict, text }) => `${verdict} ${text}`)
}

test('a network of the engine that can have grants is unsafe, also if only its gateway cannot', () => {
  const both = [
    `unsafe the container's network 10.89.0.0/24 can be granted: ${WHY}`,
    `unsafe the container's network fdbe:4cf4:9d5a::/64 can be granted: ${WHY}`,
  ]
  expect(findingsOf('never_grant = ["172.16.0.0/12"]')).toEqual(both)
  expect(findingsOf('never_grant = ["10.89.0.1", "fdbe:4cf4:9d5a::1"]')).toEqual(both)
})

test('a network that is never granted is fine', () => {
  expect(findingsOf('never_grant = ["10.88.0.0/15", "fdbe:4cf4:9d5a::/64"]')).toEqual([
    "fine the container's network 10.89.0.0/24 is never granted",
    "fine the container's network fdbe:4cf4:9d5a::/64 is never granted",
  ])
})

test('a network that is copied into the container contains clients, but its gateway is never one', () => {
  expect(findingsOf('never_grant = ["10.89.0.1"]', 'tap0')).toEqual([
    "fine the container's gateway 10.89.0.1 is never granted",
    `unsafe the container's gateway fdbe:4cf4:9d5a::1 can be granted: ${WHY}`,
  ])
  expect(findingsOf('never_grant = ["10.89.0.1", "fdbe:4cf4:9d5a::1"]', 'lan0')).toHaveLength(2)
})

test('the network of the host is an ordinary network, in a container too', () => {
  expect(findingsOf('', 'ens1')).toEqual([])
  expect(findingsOf('', 'eth0', [`${path}/nothing`])).toEqual([])
})
