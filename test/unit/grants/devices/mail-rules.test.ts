import { domainToASCII } from 'node:url'
import { describe, expect, test } from 'vitest'
import {
  type AddressRules,
  addressRulesOf,
  closedBy,
  type EnvelopeRules,
  formatHours,
  isShared,
  localMinute,
  type Neighbours,
  neighboursOf,
  type OpenedBy,
  refuseRecipient,
  refuseSender,
  refuseSession,
  rulesOfSender,
  senderBelongsTo,
} from '../../../../src/grants/devices/mail-rules.ts'
import type { GrantedDevice } from '../../../../src/grants/grant-store.ts'
import { ip } from '../../../harness/addresses.ts'

const COPIER: GrantedDevice = {
  name: 'copier-2',
  senders: ['scan@example.org'],
  recipientDomains: ['example.org'],
  messagesPerHour: 0,
  messagesPerDay: 0,
  recipientsPerHour: 0,
  recipientsPerDay: 0,
  lineEndings: 'strict',
  hours: null,
  places: [],
  until: null,
  ended: false,
  elsewhere: false,
}
const FREE: GrantedDevice = { ...COPIER, name: 'fax', senders: [] }

const SITE: AddressRules = {
  withoutDevice: 'relay',
  sharedAddresses: 'devices',
  sharedLogins: 3,
  minuteOfDay: () => 600,
  placesOf: () => [],
}
const [HOME, CARRIER] = [ip('192.0.2.7'), ip('100.64.1.2')]

const envelope = (more: Partial<EnvelopeRules> = {}): EnvelopeRules => ({
  login: 'ann',
  device: undefined,
  neighbours: undefined,
  senderBinding: 'off',
  senderDomains: [],
  recipientDomains: [],
  onForeignSender: () => expect.unreachable(),
  ...more,
})

describe('rules of the settings', () => {
  test('are those of the gate, without a place if the site has no file of places', () => {
    const rules = addressRulesOf({
      wrap: { without_device: 'refuse', shared_addresses: 'nobody', shared_logins: 7 },
      grants: { mmdb_files: [] },
    })
    expect(rules).toMatchObject({ withoutDevice: 'refuse', sharedAddresses: 'nobody', sharedLogins: 7 })
    expect(rules.minuteOfDay).toBe(localMinute)
    expect(rules.placesOf(HOME)).toEqual([])
  })

  test.each([
    [0, 0, 0],
    [0, 59, 59],
    [1, 0, 60],
    [13, 7, 787],
    [23, 59, 1439],
  ])('%i:%i is minute %i of the day', (hours, minutes, minute) =>
    expect(localMinute(() => new Date(2026, 0, 5, hours, minutes, 59).getTime())).toBe(minute),
  )

  test('hours are shown with two digits each', () => {
    expect(formatHours({ from: 9 * 60 + 5, to: 19 * 60 })).toBe('09:05 to 19:00')
    expect(formatHours({ from: 0, to: 1439 })).toBe('00:00 to 23:59')
  })
})

describe('the neighbours of an address', () => {
  const own = { login: 'copier', device: COPIER }
  const fax = { login: 'fax', device: FREE }

  test.each<[string, OpenedBy]>([
    ['one login', { login: 'ann', logins: ['ann'] }],
    ['a login without a list', { login: 'ann' }],
    ['no login', {}],
    ['an allowance where others have logged in', { logins: ['ann', 'bob'] }],
  ])('are undefined for %s', (_, opened) => expect(neighboursOf(HOME, opened, SITE)).toBeUndefined())

  test.each([CARRIER, HOME])('of %s are the logins as keys, each one once', address => {
    const several = neighboursOf(address, { login: 'BOB', logins: ['ann', 'bob'] }, SITE)
    expect(several).toEqual({ logins: ['ann', 'bob'], devices: [], isShared: address === CARRIER, onlyDevices: false })
  })

  test('in a network of carrier-grade NAT are one login, or one device', () => {
    const shared = { isShared: true, onlyDevices: false }
    expect(neighboursOf(CARRIER, { login: 'ann' }, SITE)).toEqual({ logins: ['ann'], devices: [], ...shared })
    expect(neighboursOf(CARRIER, own, SITE)).toEqual({
      logins: ['copier'],
      devices: [{ ...own, isOpen: true }],
      ...shared,
    })
  })

  test.each<[string, OpenedBy, readonly string[]]>([
    ['its own device alone', { ...own, logins: ['ann', 'copier'] }, ['copier-2']],
    ['its own device before the other one', { ...own, logins: ['copier', 'fax'], devices: [fax] }, ['copier-2', 'fax']],
    ['its own device in the list', { ...own, logins: ['copier', 'fax'], devices: [own, fax] }, ['copier-2', 'fax']],
    ['its own device at the end of the list', { ...own, logins: ['a', 'b'], devices: [fax, own] }, ['fax', 'copier-2']],
    ['the other device alone', { login: 'ann', logins: ['ann', 'fax'], devices: [fax] }, ['fax']],
  ])('include %s, once', (_, opened, names) =>
    expect(neighboursOf(HOME, opened, SITE)?.devices.map(({ device }) => device.name)).toEqual(names),
  )

  test('a device that has ended, or may not send here, is not open', () => {
    const ended = { login: 'old', device: { ...FREE, ended: true } }
    const devices = neighboursOf(HOME, { ...own, logins: ['copier', 'old'], devices: [own, ended] }, SITE)?.devices
    expect(devices?.map(({ isOpen }) => isOpen)).toEqual([true, false])
  })

  test.each([
    [HOME, {}, false],
    [HOME, { withoutDevice: 'refuse' }, true],
    [HOME, { sharedAddresses: 'nobody' }, false],
    [CARRIER, { sharedAddresses: 'nobody' }, true],
    [CARRIER, {}, false],
  ] as const)('at %s with %j are devices alone: %s', (address, changes, onlyDevices) =>
    expect(neighboursOf(address, { login: 'ann', logins: ['ann', 'bob'] }, { ...SITE, ...changes })).toMatchObject({
      onlyDevices,
    }),
  )
})

describe('an address', () => {
  test.each([
    [1, [], false],
    [1, ['ann'], true],
    [2, ['ann'], false],
    [2, ['ann', 'bob'], true],
  ] as const)('is shared from %i logins, with %j: %s', (sharedLogins, logins, shared) =>
    expect(isShared(HOME, { login: 'ann', logins }, { ...SITE, sharedLogins })).toBe(shared),
  )

  test('without a list of its logins is not shared', () =>
    expect(isShared(HOME, { login: 'ann' }, { ...SITE, sharedLogins: 1 })).toBe(false))

  test('outside of the networks of its device is open at one of its places', () => {
    const away = { ...COPIER, elsewhere: true, places: ['FR', 'AS64500'] }
    const at = (...places: string[]) =>
      closedBy(HOME, { login: 'x', device: away }, { ...SITE, placesOf: () => places })
    expect([at('DE', 'AS64500'), at('FR'), at('DE'), at()]).toEqual([
      undefined,
      undefined,
      'device_network',
      'device_network',
    ])
  })

  test('is not looked up in the files of places for a device without places', () => {
    const rules = { ...SITE, placesOf: () => expect.unreachable() }
    expect(closedBy(HOME, { login: 'x', device: { ...COPIER, elsewhere: true } }, rules)).toBe('device_network')
    expect(closedBy(HOME, { login: 'x', device: { ...COPIER, places: ['DE'] } }, rules)).toBeUndefined()
  })

  test.each([0, 599, 600, 1439])(
    'is open at minute %i if the hours of the device begin and end at the same time',
    now => {
      const device = { ...COPIER, hours: { from: 600, to: 600 } }
      expect(closedBy(HOME, { login: 'x', device }, { ...SITE, minuteOfDay: () => now })).toBeUndefined()
    },
  )
})

describe('the refusal of an open session', () => {
  const OPEN_AGAIN = { rule: 'expired', reply: '450 4.7.1 open the mailbox by POP3 again, then send' }
  const UNDECIDED = {
    rule: 'undecided',
    reply: '451 4.3.0 cannot find out whether the relay is open, try again later',
  }
  const HOURS = { ...COPIER, hours: { from: 420, to: 1140 } }

  test.each<[string, GrantedDevice | undefined, { readonly rule: string; readonly reply: string }]>([
    ['undecided', undefined, UNDECIDED],
    ['undecided', COPIER, UNDECIDED],
    ['no_grant', undefined, OPEN_AGAIN],
    ['no_grant', COPIER, OPEN_AGAIN],
    ['device_ended', undefined, OPEN_AGAIN],
    [
      'device_ended',
      COPIER,
      {
        rule: 'device_ended',
        reply: '550 5.7.1 device "copier-2" ended; auth-relay device set copier-2 --until DATE',
      },
    ],
    [
      'device_ended',
      { ...COPIER, until: '2026-11-30' },
      {
        rule: 'device_ended',
        reply: '550 5.7.1 device "copier-2" ended on 2026-11-30; auth-relay device set copier-2 --until DATE',
      },
    ],
    [
      'device_network',
      COPIER,
      {
        rule: 'device_network',
        reply: '550 5.7.1 device "copier-2" may not send from here; auth-relay device set copier-2 --from NETWORK',
      },
    ],
    [
      'device_hours',
      COPIER,
      { rule: 'device_hours', reply: '450 4.7.1 device "copier-2" may send from its hours; try again then' },
    ],
    [
      'device_hours',
      HOURS,
      { rule: 'device_hours', reply: '450 4.7.1 device "copier-2" may send from 07:00 to 19:00; try again then' },
    ],
  ])('for %s and the device %o', (reason, device, refusal) => expect(refuseSession(reason, device)).toEqual(refusal))
})

describe('the rules of a sender at an address of several logins', () => {
  const neighbours = (more: Partial<Neighbours> = {}): Neighbours => ({
    logins: ['ann', 'bob'],
    devices: [],
    isShared: false,
    onlyDevices: false,
    ...more,
  })
  const FOREIGN = 'ceo@bank.example'
  const fax = { login: 'fax', device: FREE, isOpen: true }
  const chosen = (rules: EnvelopeRules, sender = FOREIGN) => {
    const { login, device, neighbours: left } = rulesOfSender(rules, sender)
    return left === undefined ? [login, device?.name] : 'none'
  }

  test('stay the same at an address of one login', () => {
    const rules = envelope()
    expect(rulesOfSender(rules, FOREIGN)).toBe(rules)
    expect(rulesOfSender(rules, '')).toBe(rules)
  })

  test('are those of the last login for the null sender', () =>
    expect(chosen(envelope({ login: 'eve', neighbours: neighbours() }), '')).toEqual(['eve', undefined]))

  test.each<[string, string | undefined, string]>([
    ['of the last login', 'bob', 'bob'],
    ['of the last login, in upper case', 'BOB', 'bob'],
    ['of the first login after an allowance', undefined, 'ann'],
    ['of the first login if the last one has ended', 'eve', 'ann'],
  ])('are those %s for a sender of no login', (_, login, expected) =>
    expect(chosen(envelope({ login, neighbours: neighbours() }))).toEqual([expected, undefined]),
  )

  test('are not those of the last login if its device decides', () =>
    expect(chosen(envelope({ login: 'bob', device: COPIER, neighbours: neighbours() }))).toEqual(['ann', undefined]))

  test('are those of a device without senders if every login has a device', () => {
    const devices = [{ login: 'ann', device: COPIER, isOpen: true }, fax]
    expect(chosen(envelope({ neighbours: neighbours({ logins: ['ann', 'fax'], devices }) }))).toEqual(['fax', 'fax'])
  })

  test.each<[string, Partial<Neighbours>, string | readonly (string | undefined)[]]>([
    ['two logins', {}, 'none'],
    ['one login and a device without senders', { logins: ['ann', 'fax'], devices: [fax] }, 'none'],
    ['one login', { logins: ['ann'] }, ['ann', undefined]],
    ['a device without senders', { logins: ['fax'], devices: [fax] }, ['fax', 'fax']],
  ])('for a foreign sender with a binding of %s', (_, more, expected) => {
    expect(chosen(envelope({ senderBinding: 'refuse', neighbours: neighbours(more) }))).toEqual(expected)
    for (const senderBinding of ['off', 'warn'] as const)
      expect(chosen(envelope({ senderBinding, neighbours: neighbours(more) }))).not.toBe('none')
    expect(chosen(envelope({ neighbours: neighbours({ ...more, isShared: true }) }))).toBe('none')
  })

  test('a sender of a device may be a local part of any domain', () => {
    const devices = [{ login: 'copier', device: { ...COPIER, senders: ['scan'] }, isOpen: true }]
    const rules = envelope({ neighbours: neighbours({ devices }), senderDomains: ['example.org'] })
    expect(chosen(rules, 'scan@any.test')).toEqual(['copier', 'copier-2'])
  })
})

describe('an envelope sender', () => {
  const two = envelope({ device: { ...COPIER, senders: ['scan', 'fax@example.org'] } })

  test.each(['scan@any.test', 'fax@example.org', ''])('%j may be one of the senders of the device', sender =>
    expect(refuseSender(two, sender)).toBeUndefined(),
  )

  test('that is not a sender of the device gets the first one, and spaces are encoded', () =>
    expect(refuseSender(two, 'the ceo@example.org')).toEqual({
      rule: 'device_sender',
      reply: '550 5.7.1 device "copier-2" may not send as <the%20ceo@example.org>; set its sender to scan',
    }))

  test('that is null is accepted where several logins were used', () => {
    const neighbours = { logins: ['ann'], devices: [], isShared: true, onlyDevices: false }
    expect(refuseSender(envelope({ neighbours }), '')).toBeUndefined()
    expect(refuseSender(envelope({ neighbours }), 'ann@example.org')?.rule).toBe('shared_address')
  })

  test('that is foreign is refused, logged or accepted by the binding', () => {
    const foreign: string[] = []
    const bound = (more: Partial<EnvelopeRules>) =>
      refuseSender(envelope({ onForeignSender: sender => foreign.push(sender), ...more }), 'ceo@example.org')
    expect(bound({ senderBinding: 'refuse' })).toEqual({
      rule: 'sender',
      reply: '550 5.7.1 sender address does not belong to the mailbox opened from here',
    })
    expect(bound({ senderBinding: 'refuse', login: undefined })).toBeUndefined()
    expect(bound({ senderBinding: 'warn', login: undefined })).toBeUndefined()
    expect(bound({ senderBinding: 'warn', login: 'ceo' })).toBeUndefined()
    expect(bound({ senderBinding: 'off' })).toBeUndefined()
    expect(foreign).toEqual([])
    expect(bound({ senderBinding: 'warn' })).toBeUndefined()
    expect(foreign).toEqual(['ceo@example.org'])
  })
})

describe('an envelope recipient', () => {
  const reply = (recipient: string, remedy: string) => ({
    rule: 'device_recipient',
    reply: `550 5.7.1 device "copier-2" may not send to <${recipient}>; allow the domain: auth-relay device set copier-2 --to ${remedy}`,
  })

  test.each([
    ['u@evil.test', 'evil.test'],
    ['@evil.test', 'evil.test'],
    ['postmaster@evil.test', 'evil.test'],
    ['u', 'DOMAIN'],
    ['u@', 'DOMAIN'],
    ['', 'DOMAIN'],
  ])('%j is refused by the device, and the remedy names %s', (recipient, remedy) =>
    expect(refuseRecipient(envelope({ device: COPIER }), recipient)).toEqual(reply(recipient, remedy)),
  )

  test('of a login is refused without a remedy', () =>
    expect(refuseRecipient(envelope({ recipientDomains: ['example.org'] }), 'u@evil.test')).toEqual({
      rule: 'recipient',
      reply: '550 5.7.1 the mailbox opened from here may not send to <u@evil.test>',
    }))

  test('that is not well-formed is refused in a listed domain', () =>
    expect(refuseRecipient(envelope({ device: COPIER }), '\ud800@example.org')?.rule).toBe('device_recipient'))
})

test.each<[string, string, readonly string[], boolean]>([
  ['ann', 'ann', [], false],
  ['ann', 'ann@', [], false],
  ['ann', 'ann@example.net', ['example.org', 'example.net'], true],
  ['ann', 'annabel-x@example.org', [], false],
  ['ann@example.org', 'ann+\ud800@example.org', [], false],
  ['ann', 'ann+\ud800@example.org', [], false],
  ['ann@127.0.0.1', 'ann@0x7f.1', [], false],
  ['ann@漢', `ann@${domainToASCII('漢')}`, [], true],
  ['ann%x@example.org', 'ann%x@example.org', [], true],
  ['ann\n@example.org', 'ann\n@example.org', [], true],
])('login %j, sender %j, domains %j: %s', (login, sender, domains, expected) =>
  expect(senderBelongsTo(login, sender, domains)).toBe(expected),
)
