import { describe, expect, test } from 'vitest'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import {
  type MailRules,
  messageCounts,
  recipientCounts,
  refuseRecipient,
  refuseSender,
  reserve,
} from '../../../src/wrap/mail-rules.ts'
import { PolicyRates } from '../../../src/wrap/services/policy-rates.ts'

const HOUR = 3_600_000
const COPIER: GrantedDevice = {
  name: 'copier-2',
  senders: ['scan@example.org'],
  recipientDomains: ['example.org', 'partner.example', 'xn--bcher-kva.example', 'bücher.example'],
  messagesPerHour: 2,
  messagesPerDay: 3,
  recipientsPerHour: 0,
  recipientsPerDay: 2,
  lineEndings: 'strict',
  ended: false,
  elsewhere: false,
}

const rules = (more: Partial<MailRules> = {}, clock = () => 48 * HOUR): MailRules => ({
  login: 'copier2@example.org',
  device: COPIER,
  customer: '192.0.2.7',
  senderBinding: 'off',
  senderDomains: [],
  rates: new PolicyRates(
    { messages_per_login: 0, messages_per_address: 0, recipients_per_login: 0, recipients_per_address: 0 },
    clock,
  ),
  onForeignSender: () => {},
  ...more,
})

describe('senders', () => {
  test.each(['scan@example.org', 'SCAN@EXAMPLE.ORG', 'scan+floor2@example.org', ''])('%s is the device', sender =>
    expect(refuseSender(rules(), sender)).toBeUndefined(),
  )

  test.each(['ceo@example.org', 'scan@evil.test', 'copier2@example.org', 'scan'])('%s is not', sender =>
    expect(refuseSender(rules(), sender)?.reply).toBe(
      `550 5.7.1 device "copier-2" may not send as <${sender}>; set its sender to scan@example.org`,
    ),
  )

  test('a device without senders has the rule of its login', () => {
    const free = { ...COPIER, senders: [] }
    expect(refuseSender(rules({ device: free }), 'ceo@example.org')).toBeUndefined()
    expect(refuseSender(rules({ device: free, senderBinding: 'refuse' }), 'ceo@example.org')?.rule).toBe('sender')
    expect(refuseSender(rules({ device: free, senderBinding: 'refuse' }), 'copier2@example.org')).toBeUndefined()
  })

  test('a sender in a reply is cut and printable', () => {
    const reply = refuseSender(rules(), `ü\r\n${'x'.repeat(300)}@evil.test`)?.reply ?? ''
    expect(reply).toMatch(/^[\x20-\x7e]{1,300}$/)
    expect(reply).toContain('<%C3%BC%0D%0Axxx')
  })
})

describe('recipients', () => {
  test.each(['u@example.org', 'u@EXAMPLE.org.', 'u@bücher.example', 'Postmaster'])('%s may be', recipient =>
    expect(refuseRecipient(rules(), recipient)).toBeUndefined(),
  )

  test.each(['u@evil.test', 'u', 'x%evil.test@example.org', 'x!y@example.org', 'x@evil.test@example.org', ''])(
    '%s may not be',
    recipient => expect(refuseRecipient(rules(), recipient)?.rule).toBe('device_recipient'),
  )

  test('without a list everybody may be', () => {
    expect(refuseRecipient(rules({ device: { ...COPIER, recipientDomains: [] } }), 'x%y@z')).toBeUndefined()
    expect(refuseRecipient(rules({ device: undefined }), 'u@evil.test')).toBeUndefined()
  })
})

test('limits hold for an hour and for a day, and what was not sent is given back', () => {
  let now = 48 * HOUR
  const copier = rules({}, () => now)
  const send = () => reserve(messageCounts(copier))
  expect(send()).toHaveProperty('giveBack')
  const second = send()
  expect(send()).toEqual({
    rule: 'device_hour',
    reply: '450 4.7.1 device "copier-2" has reached its limit of 2 in an hour; try again later',
  })
  if ('giveBack' in second) second.giveBack()
  expect(send()).toHaveProperty('giveBack')
  now += 2 * HOUR
  expect(send()).toHaveProperty('giveBack')
  expect(send()).toMatchObject({ rule: 'device_day', reply: expect.stringContaining('limit of 3 in a day') })
  now += 48 * HOUR
  expect(send()).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toMatchObject({ rule: 'device_day' })
})
