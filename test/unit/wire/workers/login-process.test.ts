import { fc, test as property } from '@fast-check/vitest'
import { describe, expect, test } from 'vitest'
import {
  formatChainLine,
  parseChainLine,
  parseFromLogin,
  parseToLogin,
} from '../../../../src/wire/workers/login-process.ts'

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
    ['no address', { ip: 'localhost' }],
    ['a zone', { ip: 'fe80::1%eth0' }],
    ['another id', { id: '../../etc' }],
    ['NUL in the login', { login: 'ann\0root' }],
    ['more than octets', { secret: 'ĀĀ' }],
    ['a login without end', { login: 'x'.repeat(20_000) }],
    ['a method that is none', { method: 'none' }],
    ['n below 1', { n: 0 }],
    ['n that is no number', { n: '1' }],
    ['a key too many', { uid: 0 }],
    ['a port that is none', { remotePort: 70_000 }],
  ])('refuses %s', (_, change) => {
    expect(parseFromLogin({ ...verify, ...change })).toBeUndefined()
  })

  property.prop([fc.jsonValue()])('never throws', value => {
    expect(parseFromLogin(value)).toBeUndefined()
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

test.each(['chain 1', 'chain 1\r\n', 'chain -1\n', 'chain 1 2\n', ' chain 1\n', `chain ${'1'.repeat(16)}\n`, ''])(
  '%j is not a line of a chained program',
  line => {
    expect(parseChainLine(line)).toBeUndefined()
  },
)
