import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import {
  formatChainLine,
  type LoginSettingsMessage,
  parseChainLine,
  parseFromLogin,
  parseToLogin,
} from '../../../../src/wire/workers/login-process.ts'
import { ip } from '../../../harness/addresses.ts'

const verify = {
  type: 'verify',
  n: 1,
  id: '7f3a.12',
  login: 'ann',
  secret: 's\xffcret',
  method: 'pass',
  ip: '2001:DB8::0:1',
  tls: false,
  timestamp: '<7f3a.12.1@mx>',
}

describe('parseFromLogin', () => {
  test('accepts each message of the login process, with addresses in canonical form', () => {
    expect(parseFromLogin(verify)).toEqual({ ...verify, ip: '2001:db8::1' })
    expect(parseFromLogin({ type: 'cancel', n: 3 })).toEqual({ type: 'cancel', n: 3 })
    expect(parseFromLogin({ type: 'outcome', n: 3, outcome: 'yes' })).toBeDefined()
  })

  test.each([
    ['a host name', { ip: 'localhost' }],
    ['a zone', { ip: 'fe80::1%eth0' }],
    ['an invalid id', { id: '../../etc' }],
    ['NUL in the login', { login: 'ann\0root' }],
    ['a character above 255', { secret: 'ĀĀ' }],
    ['a login that is too long', { login: 'x'.repeat(20_000) }],
    ['an unknown method', { method: 'none' }],
    ['n below 1', { n: 0 }],
    ['n as a text', { n: '1' }],
    ['an additional key', { uid: 0 }],
    ['a port above 65535', { remotePort: 70_000 }],
  ])('refuses %s', (_, change) => {
    expect(parseFromLogin({ ...verify, ...change })).toBeUndefined()
  })

  property.prop([fc.jsonValue()])('never throws', value => {
    expect(parseFromLogin(value)).toBeUndefined()
  })
})

describe('the settings of a login process', () => {
  const settings: LoginSettingsMessage = {
    ids: null,
    logLevel: 'info',
    engine: 'auto',
    handoff: true,
    directory: '/run/auth-relay',
    listeners: [{ proxy: false, tls: false }],
    mode: 'verify',
    hostname: 'mx',
    apop: false,
    preamble: { password: 'tulip', trust: ['192.0.2.0/24'], reply: 'ok' },
    proxyTrust: ['192.0.2.7', '2001:db8::/32'],
    proxyTls: false,
    compat: 'none',
    requireTls: false,
    cleartextNets: [],
    cleartextLogins: [],
    offersStls: false,
    stls: null,
    loginDelay: 0,
    tries: 3,
    maxConnections: 100,
    maxPerAddress: 10,
    maxPerLogin: 10,
    maxPerOwner: 10,
    nat64Prefixes: [],
    loginTime: 60_000,
    idleTime: 600_000,
    upstream: null,
  }
  const read = (change: Partial<LoginSettingsMessage>) => {
    const message = parseToLogin({ type: 'settings', settings: { ...settings, ...change } })
    return message.type === 'settings' ? message.settings : expect.unreachable(message.type)
  }

  test('name networks by their texts', () => {
    const { proxyTrust, cleartextNets, preamble } = read({})
    expect(proxyTrust.has(ip('192.0.2.7'))).toBe(true)
    expect(proxyTrust.has(ip('192.0.2.8'))).toBe(false)
    expect(proxyTrust.has(ip('2001:db8:ffff::1'))).toBe(true)
    expect(preamble?.trust.has(ip('192.0.2.8'))).toBe(true)
    expect(cleartextNets.networks).toEqual([])
  })

  test('are of another version with a text that is not a network', () => {
    expect(() => read({ proxyTrust: ['192.0.2.7', '192.0.2.0/33'] })).toThrow(/field: settings\.proxyTrust\.1/)
  })
})

test('parseToLogin refuses messages of another version', () => {
  expect(() => parseToLogin({ type: 'open', n: 1, socket: '1.sock' })).toThrow()
  expect(parseToLogin({ type: 'open', n: 1, socket: '1.sock', ticket: 't' })).toBeDefined()
})

property.prop([fc.integer({ min: 1, max: 999_999_999_999_999 })])(
  'the line of a chained program names its login',
  n => {
    expect(parseChainLine(formatChainLine(n))).toBe(n)
  },
)

test.each([
  'chain 1',
  'chain 1\r\n',
  'chain -1\n',
  'chain 1 2\n',
  'chain 1\nx',
  ' chain 1\n',
  `chain ${'1'.repeat(16)}\n`,
  '',
])('%j is not a line of a chained program', line => {
  expect(parseChainLine(line)).toBeUndefined()
})
