import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { expect, test } from 'vitest'
import { sessionId } from '../../../../src/wire/login-event.ts'
import {
  formatSessionTicket,
  MAX_SESSION_TICKET_LINE,
  parseSessionTicket,
  type SessionTicket,
  signedTextOf,
} from '../../../../src/wire/workers/maildrop-worker.ts'
import { anyIpAddress } from '../arbitraries.ts'

const mac = (text: string): string => createHmac('sha256', 'key of this test').update(text).digest('hex')

const anyTicket: fc.Arbitrary<SessionTicket> = fc.record({
  id: fc.integer({ min: 1, max: 99_999 }).map(n => sessionId(n, n)),
  user: fc.string({ unit: 'binary', maxLength: 255 }).map(text => text.toWellFormed()),
  maildir: fc.string({ unit: 'binary', maxLength: 255 }).map(text => `/${text.toWellFormed().replaceAll('\0', '')}`),
  ip: anyIpAddress,
  tls: fc.boolean(),
  method: fc.constantFrom('pass', 'apop', 'sasl'),
  expires: fc.nat(),
})

test('format and parse are inverse; the MAC covers all fields', () => {
  fc.assert(
    fc.property(anyTicket, ticket => {
      const line = formatSessionTicket(ticket, mac)
      expect(line).toMatch(/^[\x20-\x7e]+$/)
      expect(line.length).toBeLessThanOrEqual(MAX_SESSION_TICKET_LINE)
      const presented = parseSessionTicket(line)
      expect(presented).toEqual({ ticket, signedText: signedTextOf(ticket), mac: mac(signedTextOf(ticket)) })
    }),
  )
})

test('a changed line is invalid, or its MAC does not match', () => {
  fc.assert(
    fc.property(anyTicket, fc.nat(), fc.integer({ min: 0x20, max: 0x7e }), (ticket, position, code) => {
      const line = formatSessionTicket(ticket, mac)
      const at = position % line.length
      const changed = line.slice(0, at) + String.fromCharCode(code) + line.slice(at + 1)
      const presented = parseSessionTicket(changed)
      expect(changed === line || presented === undefined || mac(presented.signedText) !== presented.mac).toBe(true)
    }),
  )
})

const [sample] = fc.sample(anyTicket, 1)
const line = formatSessionTicket(
  {
    id: sessionId(1, 1),
    user: 'ann',
    maildir: '/home/ann/Maildir',
    ip: sample?.ip ?? fc.sample(anyIpAddress, 1)[0] ?? expect.unreachable(),
    tls: true,
    method: 'pass',
    expires: 1764000000,
  },
  mac,
)

test.each([
  ['a relative maildrop', line.replace('maildir=/', 'maildir=')],
  ['a NUL in the maildrop', line.replace('Maildir', 'Maildir%00')],
  ['another spelling of the same maildrop', line.replace('Maildir', '%4Daildir')],
  ['an unnecessary escape', line.replace('/home', '%2Fhome')],
  ['another order of the keys', line.replace('tls=1 method=pass', 'method=pass tls=1')],
  ['an additional key', line.replace(' mac=', ' root=1 mac=')],
  ['another version', line.replace('v=1', 'v=2')],
  ['a number with a leading zero', line.replace('expires=', 'expires=0')],
  ['an invalid id', line.replace(/ id=\S+/, ' id=1')],
  ['an invalid address', line.replace(/ ip=\S+/, ' ip=undefined')],
  ['an unknown method', line.replace('method=pass', 'method=none')],
  ['a user that is not UTF-8', line.replace('user=ann', 'user=%FF')],
  ['an escape without its digits in the user', line.replace('user=ann', 'user=%4')],
  ['a maildrop that is not UTF-8', line.replace('Maildir', '%FF')],
  ['text in front', `x${line}`],
  ['no MAC', line.replace(/ mac=.*/, '')],
  ['a short MAC', line.slice(0, -1)],
  ['a MAC in capitals', line.slice(0, -64) + line.slice(-64).toUpperCase()],
  ['a line end', `${line}\n`],
  ['an empty line', ''],
])('%s is not a ticket', (_what, changed) => {
  expect(parseSessionTicket(line)).toBeDefined()
  expect(parseSessionTicket(changed)).toBeUndefined()
})

test('no line makes it throw', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), text => {
      expect(parseSessionTicket(`session ${text} mac=${'0'.repeat(64)}`)).toBeUndefined()
    }),
  )
})
