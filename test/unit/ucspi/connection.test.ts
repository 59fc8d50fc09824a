import { expect, test } from 'vitest'
import {
  announcedClientChanges,
  CONNECTION_VARIABLES,
  changeEnvironment,
  connectionEnvironment,
  connectionLines,
  formatEnvironment,
  localIpOf,
  portOf,
  remoteIpOf,
} from '../../../src/ucspi/environment.ts'
import { ip } from '../../harness/addresses.ts'

test.each([
  [{ TCPREMOTEIP: '192.0.2.7' }, '192.0.2.7'],
  [{ TCPREMOTEIP: '::ffff:192.0.2.7' }, '192.0.2.7'],
  [{ TCPREMOTEIP: '2001:DB8::0:7' }, '2001:db8::7'],
  [{ TCP6REMOTEIP: '2001:db8::7' }, '2001:db8::7'],
  [{ TCPREMOTEIP: '', TCP6REMOTEIP: '2001:db8::7' }, undefined],
  [{ TCPREMOTEIP: '192.0.2' }, undefined],
  [{ TCPREMOTEIP: '192.0.2.07' }, undefined],
  [{ TCPREMOTEIP: '192.0.2.7 ' }, undefined],
  [{ TCPREMOTEIP: 'fe80::1%eth0' }, undefined],
  [{ TCPREMOTEIP: Uint8Array.of(0xff) }, undefined],
  [{}, undefined],
])('the client of %j is %s', (environment, expected) => {
  expect(remoteIpOf(environment)).toBe(expected)
})

test('IPv4: the variables of tcpserver, and no inherited ones', () => {
  const changes = connectionEnvironment({
    localIp: ip('192.0.2.1'),
    localPort: 25,
    localHost: 'MX.Example.org',
    remoteIp: ip('192.0.2.7'),
    remotePort: 40_000,
  })
  const inherited = { PATH: '/bin', TCPREMOTEHOST: 'forged', TCP6REMOTEIP: '::1', TCPREMOTEINFO: 'root' }
  const environment = changeEnvironment(inherited, changes)
  expect(environment).toEqual({
    PATH: '/bin',
    PROTO: 'TCP',
    TCPLOCALIP: '192.0.2.1',
    TCPLOCALPORT: '25',
    TCPLOCALHOST: 'mx.example.org',
    TCPREMOTEIP: '192.0.2.7',
    TCPREMOTEPORT: '40000',
  })
  expect([remoteIpOf(environment), localIpOf(environment)]).toEqual(['192.0.2.7', '192.0.2.1'])
  expect([portOf(environment, 'TCPREMOTEPORT'), portOf(environment, 'TCPLOCALPORT')]).toEqual([40_000, 25])
})

test('IPv6: the TCP6 names beside the TCP ones', () => {
  const environment = changeEnvironment(
    {},
    connectionEnvironment({ localIp: ip('2001:db8::1'), localPort: 25, remoteIp: ip('2001:db8::7'), remotePort: 1 }),
  )
  expect(environment).toMatchObject({
    PROTO: 'TCP6',
    TCPREMOTEIP: '2001:db8::7',
    TCP6REMOTEIP: '2001:db8::7',
    TCP6LOCALPORT: '25',
  })
})

test('an announced client replaces the proxy in every variable', () => {
  const behind = {
    PROTO: 'TCP',
    TCPREMOTEIP: '127.0.0.1',
    TCPREMOTEHOST: 'localhost',
    TCPREMOTEPORT: '5',
    TCPREMOTEINFO: 'x',
    TCP6REMOTEIP: '::ffff:127.0.0.1',
    TCP6REMOTEHOST: 'localhost',
    TCP6REMOTEPORT: '5',
    TCP6REMOTEINFO: 'x',
    TCPLOCALPORT: '110',
  }
  const client = { ip: ip('2001:db8::7'), tls: true, proxyIp: ip('127.0.0.1') }
  expect(changeEnvironment(behind, announcedClientChanges(client))).toEqual({
    PROTO: 'TCP',
    TCPREMOTEIP: '2001:db8::7',
    TCPLOCALPORT: '110',
    AUTHRELAY_TLS: '1',
    AUTHRELAY_PROXYIP: '127.0.0.1',
  })
  expect(changeEnvironment(behind, announcedClientChanges({ ...client, localPort: 995 }))).toMatchObject({
    TCPLOCALPORT: '995',
  })
})

test.each([
  { localIp: ip('192.0.2.1'), localPort: 25, remoteIp: ip('192.0.2.7'), remotePort: 40_000 },
  { localIp: ip('2001:db8::1'), localPort: 25, remoteIp: ip('2001:db8::7'), remotePort: 1 },
  {
    localIp: ip('192.0.2.1'),
    localPort: 25,
    remoteIp: ip('192.0.2.7'),
    remotePort: 1,
    localHost: 'MX.example',
    remoteHost: 'C.Example',
    remoteInfo: 'joe',
  },
  { localIp: ip('2001:db8::1'), localPort: 25, remoteIp: ip('2001:db8::7'), remotePort: 1, remoteHost: 'C.Example' },
])('as lines: the same variables (%j)', connection => {
  const expected = formatEnvironment(changeEnvironment({}, connectionEnvironment(connection)))
  expect(connectionLines(connection).toSorted()).toEqual(expected.toSorted())
  expect(Object.keys(connectionEnvironment(connection)).toSorted()).toEqual(CONNECTION_VARIABLES.toSorted())
})
