import { createHmac } from 'node:crypto'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { TicketVerifier } from '../../../src/pop3d/ticket-verifier.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import { formatSessionTicket, type SessionTicket } from '../../../src/wire/workers/maildrop-worker.ts'

const KEY = '5f'.repeat(32)
const NOW = 1_764_000_000
const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new Error('192.0.2.7 is an address')

const ticketOf = (counter: number, expires = NOW + 30): SessionTicket => ({
  id: sessionId(1, counter),
  user: 'ann',
  maildir: '/home/ann/Maildir',
  ip,
  tls: false,
  method: 'pass',
  expires,
})
const lineOf = (ticket: SessionTicket, key = KEY) =>
  formatSessionTicket(ticket, text => createHmac('sha256', Buffer.from(key, 'hex')).update(text).digest('hex'))

describe('TicketVerifier', () => {
  test('accepts a ticket of the monitor once, until it expires', () => {
    const verifier = new TicketVerifier(KEY)
    expect(verifier.check(lineOf(ticketOf(1)), NOW)).toEqual(ticketOf(1))
    expect(verifier.check(lineOf(ticketOf(1)), NOW)).toBe('repeated')
    expect(verifier.check(lineOf(ticketOf(1, NOW + 60)), NOW)).toBe('repeated')
    expect(verifier.check(lineOf(ticketOf(2)), NOW + 29)).toEqual(ticketOf(2))
    expect(verifier.check(lineOf(ticketOf(3)), NOW + 30)).toBe('expired')
    expect(verifier.check(lineOf(ticketOf(4), '60'.repeat(32)), NOW)).toBe('forged')
    expect(verifier.check('STAT', NOW)).toBe('malformed')
  })

  test('drops only tickets that are invalid', () => {
    const verifier = new TicketVerifier(KEY)
    for (let counter = 1; counter <= 3000; counter += 1) {
      expect(verifier.check(lineOf(ticketOf(counter, NOW + counter)), NOW)).toEqual(ticketOf(counter, NOW + counter))
    }
    for (const counter of [1, 1024, 3000]) {
      const repeated = verifier.check(lineOf(ticketOf(counter, NOW + counter)), NOW)
      expect(repeated).toBe('repeated')
    }
    expect(verifier.check(lineOf(ticketOf(1, NOW + 1)), NOW + 2)).toBe('expired')
  })

  test('accepts no changed line', () => {
    const verifier = new TicketVerifier(KEY)
    const line = lineOf(ticketOf(7))
    fc.assert(
      fc.property(fc.nat(line.length - 1), fc.string({ minLength: 1, maxLength: 1 }), (at, character) => {
        const changed = line.slice(0, at) + character + line.slice(at + 1)
        fc.pre(changed !== line)
        expect(['malformed', 'forged']).toContain(verifier.check(changed, NOW))
      }),
    )
  })
})
