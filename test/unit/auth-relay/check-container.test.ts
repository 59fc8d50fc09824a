import { writeFileSync } from 'node:fs'
import { afterAll, expect, test } from 'vitest'
import { checkContainer } from '../../../src/auth-relay/check/check-container.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const { path, remove } = temporaryDirectory()
afterAll(remove)

const mark = `${path}/containerenv`
writeFileSync(mark, '')
// As Linux prints the routes of a container with the gateways 10.89.0.1 and fdbe:4cf4:9d5a::1.
writeFileSync(
  `${path}/route`,
  `Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0100590A\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0000590A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
`,
)
writeFileSync(
  `${path}/ipv6_route`,
  `fdbe4cf49d5a00000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 fdbe4cf49d5a00000000000000000001 00000400 00000003 00000000 00000003     eth0
00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo
`,
)

const judge = (grants: string, marks = [mark]) => {
  const { settings } = parseSettings(`configured = true\n[grants]\n${grants}\n`, 'auth-relay.toml')
  return checkContainer(settings, { marks, routes: path }).map(({ verdict, text }) => `${verdict} ${text}`)
}

test('a gateway that a login could open the relay for is unsafe: every client may have its address', () => {
  expect(judge('never_grant = ["172.16.0.0/12"]')).toEqual([
    "unsafe the gateway 10.89.0.1 of this container can be granted: with a rootless network or docker's userland proxy every client has that address",
    "unsafe the gateway fdbe:4cf4:9d5a::1 of this container can be granted: with a rootless network or docker's userland proxy every client has that address",
  ])
})

test('gateways that are never granted are fine', () => {
  expect(judge('never_grant = ["10.89.0.0/24", "fdbe:4cf4:9d5a::/64"]')).toEqual([
    'fine the gateway 10.89.0.1 of this container is never granted',
    'fine the gateway fdbe:4cf4:9d5a::1 of this container is never granted',
  ])
})

test('outside a container the gateway is a router like any other', () => {
  expect(judge('', [`${path}/nothing`])).toEqual([])
})
