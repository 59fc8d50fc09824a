import { describe, expect, test } from 'vitest'
import {
  type AddressRules,
  closedBy,
  isShared,
  neighboursOf,
  type OpenedBy,
  refuseRecipient,
  refuseSender,
  refuseSession,
  rulesOfSender,
} from '../../../src/grants/devices/mail-rules.ts'
import type { GrantedDevice } from '../../../src/grants/grant-store.ts'
import { formatReply } from '../../../src/smtp/reply.ts'
import { MailCounts } from '../../../src/wrap/mail-counts.ts'
import { type MailRules, messageCounts, recipientCounts, reserve } from '../../../src/wrap/mail-rules.ts'
import { ip } from '../../harness/addresses.ts'

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
  hours: null,
  places: [],
  until: null,
  ended: false,
  elsewhere: false,
}

const rules = (more: Partial<MailRules> = {}, clock = () => 48 * HOUR): MailRules => ({
  login: 'copier2@example.org',
  device: COPIER,
  customer: '192.0.2.7',
  senderBinding: 'off',
  senderDomains: [],
  recipientDomains: [],
  neighbours: undefined,
  mailCounts: new MailCounts(
    { messages_per_login: 0, messages_per_address: 0, recipients_per_login: 0, recipients_per_address: 0 },
    clock,
  ),
  onForeignSender: () => {},
  ...more,
})

describe('senders', () => {
  test.each(['scan@example.org', 'SCAN@EXAMPLE.ORG', 'scan+floor2@example.org', ''])(
    '%s belongs to the device',
    sender => expect(refuseSender(rules(), sender)).toBeUndefined(),
  )

  test('a domain is the same in U-labels and A-labels, in every case and with a final dot', () => {
    const own = rules({ device: { ...COPIER, senders: ['scan@bücher.example'] } })
    for (const domain of ['bücher.example', 'BÜCHER.example.', 'xn--bcher-kva.example', 'XN--BCHER-KVA.EXAMPLE'])
      expect(refuseSender(own, `scan@${domain}`)).toBeUndefined()
    const site = rules({ device: undefined, recipientDomains: ['Example.org', 'xn--bcher-kva.example'] })
    for (const domain of ['example.ORG', 'bücher.example.'])
      expect(refuseRecipient(site, `u@${domain}`)).toBeUndefined()
    for (const domain of [
      'bucher.example',
      'bücher.example/x',
      'bücher.example:25',
      'bücher%2eexample',
      'example%2eorg',
    ])
      expect(refuseRecipient(site, `u@${domain}`)?.rule).toBe('recipient')
  })

  test.each(['ceo@example.org', 'scan@evil.test', 'copier2@example.org', 'scan'])(
    '%s does not belong to the device',
    sender =>
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

  test('a sender in a reply is shortened and printable', () => {
    const reply = refuseSender(rules(), `ü\r\n${'x'.repeat(300)}@evil.test`)?.reply ?? ''
    expect(reply).toMatch(/^[\x20-\x7e]{1,300}$/)
    expect(reply).toContain('<%C3%BC%0D%0Axxx')
  })
})

describe('a long address in a reply', () => {
  const HAN = '漢'.repeat(60)
  const line = (reply = '') => formatReply(reply).toString('latin1').trimEnd()

  test('of a sender is cut at 100 octets, and the remedy stays', () => {
    expect(line(refuseSender(rules(), `${HAN}@evil.test`)?.reply)).toMatch(
      /^550 5\.7\.1 device "copier-2" may not send as <(%[0-9A-F]{2}){33}>; set its sender to scan@example\.org$/,
    )
    expect(line(refuseSender(rules(), `${'x'.repeat(98)}漢@evil.test`)?.reply)).toContain(`as <${'x'.repeat(98)}>;`)
  })

  test('of a recipient is cut at 100 octets, and the remedy stays', () => {
    expect(line(refuseRecipient(rules(), `${HAN}@evil.test`)?.reply)).toMatch(
      /^550 5\.7\.1 .* to <(%[0-9A-F]{2}){33}>; allow the domain: auth-relay device set copier-2 --to evil\.test$/,
    )
    expect(
      line(refuseRecipient(rules({ device: undefined, recipientDomains: ['a.test'] }), `${HAN}@b.test`)?.reply),
    ).toMatch(/ may not send to <(%[0-9A-F]{2}){33}>$/)
  })

  test('never cuts the domain of the remedy, because a part of a domain is another domain', () => {
    for (const domain of [`${'x'.repeat(60)}.evil.test`, `${HAN}.test`])
      expect(refuseRecipient(rules(), `u@${domain}`)?.reply).toMatch(/ --to DOMAIN$/)
    const device = { ...COPIER, name: 'n'.repeat(64) }
    const longest = refuseRecipient(rules({ device }), `${'y'.repeat(64)}@${'x'.repeat(55)}.test`)?.reply ?? ''
    const answer = line(longest.replace('550 5.7.1', '554 5.5.1 no valid recipients:'))
    expect(answer).toMatch(/ --to x{55}\.test$/)
  })
})

describe('recipients', () => {
  test.each(['u@example.org', 'u@EXAMPLE.org.', 'u@bücher.example', 'Postmaster'])('%s is allowed', recipient =>
    expect(refuseRecipient(rules(), recipient)).toBeUndefined(),
  )

  test.each(['u@evil.test', 'u', 'x%evil.test@example.org', 'x!y@example.org', 'x@evil.test@example.org', ''])(
    '%s is not allowed',
    recipient => expect(refuseRecipient(rules(), recipient)?.rule).toBe('device_recipient'),
  )

  test('without a list every recipient is allowed', () => {
    expect(refuseRecipient(rules({ device: { ...COPIER, recipientDomains: [] } }), 'x%y@z')).toBeUndefined()
    expect(refuseRecipient(rules({ device: undefined }), 'u@evil.test')).toBeUndefined()
  })
})

test('limits apply to an hour and to a day, and unsent messages are returned', () => {
  let now = 48 * HOUR
  const copier = rules({}, () => now)
  const send = () => reserve(messageCounts(copier))
  expect(send()).toHaveProperty('giveBack')
  const second = send()
  expect(send()).toEqual({
    rule: 'device_hour',
    reply: '450 4.7.1 device "copier-2" has sent 2 messages in an hour; try again after 01:30 UTC',
  })
  if ('giveBack' in second) second.giveBack()
  expect(send()).toHaveProperty('giveBack')
  now += 2 * HOUR
  expect(send()).toHaveProperty('giveBack')
  expect(send()).toMatchObject({
    rule: 'device_day',
    reply: expect.stringContaining('has sent 3 messages in a day; try again after 1970-01-04 08:00 UTC'),
  })
  now += 48 * HOUR
  expect(send()).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toHaveProperty('giveBack')
  expect(reserve(recipientCounts(copier))).toMatchObject({ rule: 'device_day' })
})

describe('an address that many logins open', () => {
  const site = {
    withoutDevice: 'relay',
    sharedAddresses: 'devices',
    sharedLogins: 3,
    minuteOfDay: () => 600,
    placesOf: () => ['DE', 'AS64500'],
  } as const
  const [home, carrier] = [ip('192.0.2.7'), ip('100.64.1.2')]
  const three = { login: 'ann', logins: ['ann', 'bob', 'eve'] }

  test.each([
    ['two logins', home, { login: 'ann', logins: ['ann', 'bob'] }, false],
    ['three', home, three, true],
    ['one in 100.64.0.0/10', carrier, { login: 'ann', logins: [] }, true],
    ['an allowance', carrier, { login: undefined }, false],
  ])('%s', (_, address, opened, shared) => {
    expect(isShared(address, opened, site)).toBe(shared)
    expect(closedBy(address, opened, site)).toBeUndefined()
    const nobody = { ...site, sharedAddresses: 'nobody' } as const
    expect(closedBy(address, opened, nobody)).toBe(shared ? 'shared_address' : undefined)
    expect(closedBy(address, { ...opened, device: COPIER }, nobody)).toBeUndefined()
    expect(isShared(address, opened, { ...site, sharedAddresses: 'as_before' })).toBe(false)
  })

  /** The refusal of a sender at an address, `opened` by its last login. */
  const refusal = (
    opened: OpenedBy,
    sender: string,
    more: Partial<MailRules> = {},
    changes: Partial<AddressRules> = {},
  ) => {
    const { login, device } = opened
    const neighbours = neighboursOf(home, opened, { ...site, ...changes })
    return refuseSender(rulesOfSender(rules({ login, device, neighbours, ...more }), sender), sender)
  }
  const SHARED = {
    rule: 'shared_address',
    reply: '550 5.7.1 many mailboxes were opened from this address; send as one of them',
  }

  test('each of its logins sends as itself, and every other sender is refused', () => {
    for (const sender of ['bob@example.org', 'eve+x@example.org', '']) expect(refusal(three, sender)).toBeUndefined()
    expect(refusal(three, 'ceo@example.org')).toEqual(SHARED)
  })

  const copier = { login: 'copier2@example.org', device: COPIER }
  const fax = { login: 'fax', device: { ...COPIER, name: 'fax', senders: [] } }
  const logins = ['ann', 'copier2@example.org', 'eve', 'fax']
  const devices = [copier, fax]

  describe.each([
    ['a device', { ...copier, logins, devices }],
    ['a login without a device', { login: 'ann', logins, devices }],
    ['a device without senders', { ...fax, logins, devices }],
  ])('whose last login is that of %s', (_, opened) => {
    test.each(['scan@example.org', 'ann@example.org', 'eve+x@example.org', 'fax@example.org', ''])(
      '%s may send',
      sender => expect(refusal(opened, sender)).toBeUndefined(),
    )
    test.each(['ceo@example.org', 'copier2@example.org', 'scan@evil.test'])(
      '%s is refused, and no device is named',
      sender => expect(refusal(opened, sender)).toEqual(SHARED),
    )
    test('a login without a device sends nothing if the site wants only devices there', () => {
      for (const changes of [{ sharedAddresses: 'nobody' }, { withoutDevice: 'refuse' }] as const) {
        expect(refusal(opened, 'ann@example.org', {}, changes)).toEqual(SHARED)
        expect(refusal(opened, 'scan@example.org', {}, changes)).toBeUndefined()
      }
    })
    test('the senders of a device that has ended or may not send here are refused', () => {
      for (const change of [{ ended: true }, { elsewhere: true, places: [] }, { hours: { from: 0, to: 60 } }]) {
        const closed = [{ ...copier, device: { ...COPIER, ...change } }, fax]
        const without = opened.login === copier.login ? { login: 'ann', device: undefined } : {}
        expect(refusal({ ...opened, ...without, devices: closed }, 'scan@example.org')).toEqual(SHARED)
      }
    })
  })

  test('the rules of a mail are those of the login or the device that has its sender', () => {
    const opened = { login: 'ann', logins, devices }
    const mail = (sender: string) =>
      rulesOfSender(rules({ login: 'ann', device: undefined, neighbours: neighboursOf(home, opened, site) }), sender)
    const scan = mail('scan@example.org')
    expect([scan.login, scan.device?.name]).toEqual(['copier2@example.org', 'copier-2'])
    expect(refuseRecipient(scan, 'u@evil.test')?.rule).toBe('device_recipient')
    expect(messageCounts(scan).map(({ key }) => key)).toContain('copier-2')
    expect(mail('eve@example.org')).toMatchObject({ login: 'eve', device: undefined })
    expect(mail('fax@example.org')).toMatchObject({ login: 'fax', device: { name: 'fax' } })
    expect(mail('')).toMatchObject({ login: 'ann', device: undefined })
  })

  describe('two logins, so that the address is not shared', () => {
    const two = { logins: ['ann', 'copier2@example.org'], devices: [copier] }

    test.each([
      ['ann', { login: 'ann', ...two }],
      ['the device', { ...copier, ...two }],
    ])('after a login of %s each has its own rules', (_, opened) => {
      expect(refusal(opened, 'scan@example.org')).toBeUndefined()
      expect(refusal(opened, 'ann@example.org')).toBeUndefined()
      // Without sender_binding ann may use every sender.
      expect(refusal(opened, 'ceo@bank.example')).toBeUndefined()
      expect(refusal(opened, 'ceo@bank.example', { senderBinding: 'refuse' })?.rule).toBe('sender')
      expect(refusal(opened, 'ceo@bank.example', {}, { withoutDevice: 'refuse' })).toEqual(SHARED)
    })

    test('two devices: a sender of neither is refused', () => {
      const scanner = { login: 'scanner', device: { ...COPIER, name: 'scanner', senders: ['s@example.org'] } }
      const opened = { ...scanner, logins: ['scanner', copier.login], devices: [scanner, copier] }
      expect(refusal(opened, 'scan@example.org')).toBeUndefined()
      expect(refusal(opened, 'ceo@example.org')).toEqual(SHARED)
    })
  })

  test('a site can refuse a login without a device', () => {
    const refused = { ...site, withoutDevice: 'refuse' } as const
    expect(closedBy(home, { login: 'ann' }, refused)).toBe('no_device')
    expect(closedBy(home, { login: 'ann', device: COPIER }, refused)).toBeUndefined()
    expect(closedBy(home, { login: undefined }, refused)).toBeUndefined()
  })

  test.each([
    [420, 1140, 419, false],
    [420, 1140, 420, true],
    [420, 1140, 1140, false],
    [1320, 360, 1320, true],
    [1320, 360, 359, true],
    [1320, 360, 360, false],
  ])('hours from %i to %i at %i', (from, to, minute, isOpen) => {
    const device = { ...COPIER, hours: { from, to } }
    const closed = closedBy(home, { login: 'x', device }, { ...site, minuteOfDay: () => minute })
    expect(closed).toBe(isOpen ? undefined : 'device_hours')
  })

  test('a place opens the relay outside of the networks, and changes nothing else', () => {
    const away = { ...COPIER, elsewhere: true }
    expect(closedBy(home, { login: 'x', device: away }, site)).toBe('device_network')
    expect(closedBy(home, { login: 'x', device: { ...away, places: ['AS64500'] } }, site)).toBeUndefined()
    expect(closedBy(home, { login: 'x', device: { ...away, places: ['FR'] } }, site)).toBe('device_network')
    expect(closedBy(home, { login: 'x', device: { ...away, places: ['DE'], ended: true } }, site)).toBe('device_ended')
  })

  test('a session that was opened before gets the reason in the reply', () => {
    const reply = (reason: string) =>
      refuseSession(reason, { ...COPIER, until: '2026-11-30', hours: { from: 420, to: 1140 } }).reply
    expect(reply('device_hours')).toBe('450 4.7.1 device "copier-2" may send from 07:00 to 19:00; try again then')
    expect(reply('device_ended')).toMatch(
      /^550 5\.7\.1 device "copier-2" ended on 2026-11-30; auth-relay device set copier-2 --until/,
    )
    expect(reply('device_network')).toMatch(/^550 5\.7\.1 .*--from NETWORK$/)
    expect(reply('no_grant')).toBe('450 4.7.1 open the mailbox by POP3 again, then send')
    expect(refuseSession('expired', undefined).reply).toBe('450 4.7.1 open the mailbox by POP3 again, then send')
  })
})

test('recipients of a login without a device', () => {
  const bound = rules({ device: undefined, recipientDomains: ['example.org'] })
  expect(refuseRecipient(bound, 'u@Example.org')).toBeUndefined()
  expect(refuseRecipient(bound, 'u@evil.test')?.rule).toBe('recipient')
  expect(refuseRecipient({ ...bound, login: undefined }, 'u@evil.test')).toBeUndefined()
})
