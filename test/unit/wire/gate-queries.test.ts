import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import type { IpAddress } from '../../../src/wire/ip-address.ts'
import {
  formatClientFaults,
  formatCountsQuery,
  formatDeviceCounts,
  formatFaultsQuery,
  parseClientFaults,
  parseCountsQuery,
  parseDeviceCounts,
  parseFaultsQuery,
} from '../../../src/wire/services/gate-report.ts'
import {
  clientOf,
  formatPolicyAnswer,
  formatPolicyRequest,
  MAX_POLICY_REQUEST,
  PolicyFault,
  PolicyReader,
} from '../../../src/wire/services/policy.ts'
import {
  formatRelayAnswer,
  formatRelayQuery,
  parseRelayAnswer,
  parseRelayQuery,
} from '../../../src/wire/services/relay-query.ts'
import {
  formatNetstring,
  formatSocketmapAnswer,
  formatSocketmapQuery,
  NetstringFault,
  NetstringReader,
  parseSocketmapQuery,
} from '../../../src/wire/services/socketmap.ts'
import {
  formatDeviceMessages,
  formatRelayTally,
  formatUsageEvent,
  MAX_RECENT,
  MAX_RELAY_TALLY_LINE,
  parseDeviceMessages,
  parseRelayTally,
  parseUsageEvent,
} from '../../../src/wire/usage-event.ts'
import { ip as toAddress } from '../../harness/addresses.ts'

const addresses: fc.Arbitrary<IpAddress> = fc.oneof(fc.ipV4(), fc.ipV6()).map(toAddress)
/** Divides octets at every place at which a peer or a network may divide them. */
const cut = (bytes: Buffer, sizes: readonly number[]): Buffer[] => {
  const pieces: Buffer[] = []
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] ?? 1
    pieces.push(bytes.subarray(at, at + size))
    at += size
  }
  return pieces
}
const sizes = fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 6 })
const text = fc.string({ unit: 'grapheme', maxLength: 20 })

describe('netstring', () => {
  test('any contents, in any pieces', () => {
    fc.assert(
      fc.property(fc.array(text), sizes, (contents, places) => {
        const reader = new NetstringReader(400)
        const stream = Buffer.from(contents.map(formatNetstring).join(''))
        expect(cut(stream, places).flatMap(piece => reader.push(piece))).toEqual(contents)
      }),
    )
  })
  test.each(['x', ':,', '01:a,', '1:ab', '99999999999:', '101:', '-1:,'])('%j is refused', stream => {
    expect(() => new NetstringReader(100).push(Buffer.from(stream))).toThrow(NetstringFault)
  })
  test('contents of exactly the limit are read', () => {
    const longest = 'x'.repeat(100)
    expect(new NetstringReader(100).push(Buffer.from(formatNetstring(longest)))).toEqual([longest])
  })
  test.each([
    ['101:', 'not a netstring of at most 100 octets'],
    ['1:ab', 'a netstring does not end in a comma'],
  ])('%j has the fault: %s', (stream, message) => {
    const read = () => new NetstringReader(100).push(Buffer.from(stream))
    expect(read).toThrow(expect.objectContaining({ name: 'NetstringFault', message }))
  })
  test('any octets end in contents or a fault', () => {
    fc.assert(
      fc.property(fc.uint8Array(), octets => {
        try {
          new NetstringReader(50).push(Buffer.from(octets))
        } catch (error) {
          expect(error).toBeInstanceOf(NetstringFault)
        }
      }),
    )
  })
})

test('socketmap queries and answers', () => {
  expect(parseSocketmapQuery(formatSocketmapQuery({ map: 'relay', key: '192.0.2.7' }))).toEqual({
    map: 'relay',
    key: '192.0.2.7',
  })
  expect(parseSocketmapQuery('relay')).toBeUndefined()
  expect(parseSocketmapQuery(' key')).toBeUndefined()
  expect(parseSocketmapQuery('m a key')).toEqual({ map: 'm', key: 'a key' })
  expect(formatSocketmapAnswer({ kind: 'ok', data: 'RELAY' })).toBe('OK RELAY')
  expect(formatSocketmapAnswer({ kind: 'notfound' })).toBe('NOTFOUND ')
  expect(formatSocketmapAnswer({ kind: 'temporary', reason: 'later' })).toBe('TEMP later')
  expect(formatSocketmapAnswer({ kind: 'permanent', reason: 'no' })).toBe('PERM no')
})

describe('policy request', () => {
  const value = fc.oneof(
    fc.stringMatching(/^[\x20-\x7e]{0,20}$/),
    text.filter(each => !each.includes('\n')),
  )
  const request = fc
    .dictionary(fc.stringMatching(/^[a-z_]{1,10}$/), value)
    .map(
      attributes =>
        new Map([
          ['request', 'smtpd_access_policy'],
          ...Object.entries(attributes).filter(([name]) => name !== 'request'),
        ]),
    )

  test('any requests, in any pieces', () => {
    fc.assert(
      fc.property(fc.array(request), sizes, (requests, places) => {
        const reader = new PolicyReader()
        const stream = Buffer.from(requests.map(formatPolicyRequest).join(''))
        const read = cut(stream, places).flatMap(piece => reader.push(piece.toString('latin1')))
        expect(read.map(r => [...r])).toEqual(requests.map(r => [...r]))
      }),
    )
  })
  test('the client is an address or nothing', () => {
    expect(clientOf(new Map([['client_address', '::ffff:192.0.2.7']]))).toBe('192.0.2.7')
    expect(clientOf(new Map([['client_address', 'unknown']]))).toBeUndefined()
    expect(clientOf(new Map())).toBeUndefined()
  })
  test.each(['GET / HTTP/1.1\n\n', 'request=other\n\n', '\n\n', '=x\n\n'])('%j is refused', stream => {
    expect(() => new PolicyReader().push(stream)).toThrow(PolicyFault)
  })
  test('the first value of a repeated attribute counts', () => {
    const [read] = new PolicyReader().push('request=smtpd_access_policy\na=1\na=2\n\n')
    expect(read?.get('a')).toBe('1')
  })
  test.each([
    ['=x\n\n', 'a line of the request is not name=value'],
    ['request=other\n\n', 'not request=smtpd_access_policy'],
    ['x'.repeat(MAX_POLICY_REQUEST + 1), 'a request is longer than 16384 octets'],
  ])('%j has the fault: %s', (stream, message) => {
    expect(() => new PolicyReader().push(stream)).toThrow(expect.objectContaining({ name: 'PolicyFault', message }))
  })
  test('a value that is not UTF-8 is not well-formed, and keeps its ASCII', () => {
    const [read] = new PolicyReader().push('request=smtpd_access_policy\na=ann\xff@example.org\nb=\xc3\xbc\n\n')
    expect(read?.get('a')).toBe('ann\udcff@example.org')
    expect(read?.get('b')).toBe('ü')
  })
  test('an unfinished request of the maximum length is kept', () => {
    expect(new PolicyReader().push('x'.repeat(MAX_POLICY_REQUEST))).toEqual([])
  })
  test('a request without end is refused, not kept', () => {
    expect(() => new PolicyReader().push('x'.repeat(MAX_POLICY_REQUEST + 1))).toThrow(PolicyFault)
  })
  test('an action cannot begin a second line', () => {
    expect(formatPolicyAnswer('REJECT a\nb\r\n\nc')).toBe('action=REJECT a b c\n\n')
  })
})

describe('relay query', () => {
  test('query and answer are parsed back', () => {
    fc.assert(
      fc.property(addresses, fc.option(text, { nil: undefined }), fc.nat(), (ip, login, until) => {
        expect(parseRelayQuery(formatRelayQuery({ ip }))).toEqual({ ip })
        const mail = { ip, sender: `a b=${login ?? ''}@example.org`.toWellFormed(), recipient: 'ü@example.org' }
        expect(parseRelayQuery(formatRelayQuery(mail))).toEqual(mail)
        expect(parseRelayQuery(formatRelayQuery({ ip, sender: '' }))).toEqual({ ip, sender: '' })
        const counted = { ip, instance: `4711.${until}=` }
        expect(parseRelayQuery(formatRelayQuery(counted))).toEqual(counted)
        const named = login === '' ? undefined : login
        const yes = { verdict: 'yes', until, login: named } as const
        expect(parseRelayAnswer(formatRelayAnswer(yes))).toEqual(yes)
      }),
    )
    for (const verdict of ['no', 'unknown'] as const)
      expect(parseRelayAnswer(formatRelayAnswer({ verdict }))).toEqual({ verdict })
    const later = { verdict: 'later', reply: '450 4.7.1 device "x" has reached its limit' } as const
    expect(parseRelayAnswer(formatRelayAnswer(later))).toEqual(later)
    const no = { verdict: 'no', reply: '550 5.7.1 device "x" may not send as <a@b.example>' } as const
    expect(parseRelayAnswer(formatRelayAnswer(no))).toEqual(no)
    expect(formatRelayAnswer({ verdict: 'no', reply: '550 a\r\nyes until=1' })).toBe('no 550 a yes until=1')
    expect(formatRelayAnswer({ verdict: 'later', reply: '450 a\r\nyes until=1' })).toBe('later 450 a yes until=1')
  })
  test('a query without a message has the address alone, and may end in CR', () => {
    for (const line of ['relay v=1 ip=192.0.2.7', 'relay v=1 ip=192.0.2.7\r'])
      expect(parseRelayQuery(line)).toStrictEqual({ ip: '192.0.2.7' })
  })
  test('the counts of a device are requested and answered by its name', () => {
    fc.assert(
      fc.property(fc.string({ minLength: 1, unit: 'binary' }), fc.nat(), fc.nat(), (name, hour, day) => {
        fc.pre(name.isWellFormed())
        expect(parseCountsQuery(formatCountsQuery(name))).toBe(name)
        const counts = {
          messagesPerHour: hour % 1e9,
          messagesPerDay: day % 1e9,
          recipientsPerHour: 0,
          recipientsPerDay: 7,
        }
        expect(parseDeviceCounts(formatDeviceCounts(counts))).toEqual(counts)
      }),
    )
  })
  test.each([
    'counts v=1 device=',
    'counts v=2 device=a',
    'counts v=1 device=a b',
    'counts v=1 device=%',
    ' counts v=1 device=a',
  ])('%j requests no counts', line => {
    expect(parseCountsQuery(line)).toBeUndefined()
  })
  test.each([
    '',
    'counts',
    'unknown',
    'counts messages_hour=1 messages_day=1 recipients_hour=1 recipients_day=x',
    'counts messages_hour=1 messages_day=1 recipients_hour=1 recipients_day=1 ',
    'counts messages_hour=1234567890 messages_day=1 recipients_hour=1 recipients_day=1',
  ])('%j is not a count', line => {
    expect(parseDeviceCounts(line)).toBeUndefined()
  })
  test.each([
    '',
    'relay',
    'relay v=1',
    'RELAY v=1 ip=192.0.2.7',
    '\rrelay v=1 ip=192.0.2.7',
    'relay v=1 ip=192.0.2.7 recipient_encoded=a@b',
    'relay v=2 ip=192.0.2.7',
    'relay v=1 ip=host',
    'relay v=1 ip=192.0.2.7 x=1',
    'yes',
    'relay v=1 ip=192.0.2.7 sender_encoded=a@b',
    'relay v=1 ip=192.0.2.7 sender_encoded=/w==',
    'relay v=1 ip=192.0.2.7 instance=',
    'relay v=1 ip=192.0.2.7 instance=\u00e4',
    `relay v=1 ip=192.0.2.7 instance=${'x'.repeat(101)}`,
  ])('%j is not a query', line => {
    expect(parseRelayQuery(line)).toBeUndefined()
  })
  test.each([
    'later',
    'later ',
    'later 550 x',
    'xlater 450 x',
    'later 450 a\nyes until=1',
    'no yes until=1',
    'no ',
    'no 450 x',
    'xno 550 x',
    'no 550 a\nyes until=1',
    'later 450',
    '',
    'yes',
    'yes until=',
    'yes until=1 user=%',
    'yes until=1 user=a\0b',
    'yes until=1 user=a%00b',
    'yes until=1x',
    'YES until=1',
    'no ',
  ])('%j is not an answer', line => {
    expect(parseRelayAnswer(line)).toBeUndefined()
  })
})

describe('usage event', () => {
  test('is parsed back', () => {
    fc.assert(
      fc.property(addresses, fc.nat(), fc.constantFrom('gate', 'wrap', 'policy'), (ip, at, service) => {
        expect(parseUsageEvent(formatUsageEvent({ ip, at, service }))).toEqual({ ip, at, service })
      }),
    )
  })
  test.each([
    '',
    'usage v=1',
    'usage v=2 ip=192.0.2.7 at=1 service=gate',
    'usage v=1 ip=x at=1 service=gate',
    'usage v=1 ip=192.0.2.7 at=-1 service=gate',
    'usage v=1 ip=192.0.2.7 at=1x service=gate',
    'usage v=1 ip=192.0.2.7 at=1 service=gate more=1',
    'usage v=1 ip=192.0.2.7 at=1 more=gate',
    'usage v=1 ip=192.0.2.7 more=1 service=gate',
    'usage v=1 more=192.0.2.7 at=1 service=gate',
    'USAGE v=1 ip=192.0.2.7 at=1 service=gate',
  ])('%j is not a usage event', line => {
    expect(parseUsageEvent(line)).toBeUndefined()
  })
})

test('the former word and the former key of the service are accepted', () => {
  expect(parseUsageEvent('use v=1 ip=192.0.2.7 at=1 door=gate')).toEqual({ ip: '192.0.2.7', at: 1, service: 'gate' })
})

describe('tally of a service', () => {
  const count = fc.nat({ max: 999_999_999_999 })
  const tallies = fc.record({
    at: count,
    service: fc.stringMatching(/^[a-z]{1,16}$/),
    counts: fc.record({ relayed: count, refused: count, undecided: count, never: count }),
    recent: fc.array(addresses, { maxLength: MAX_RECENT }),
  })
  test('is parsed back, and fits its line', () => {
    fc.assert(
      fc.property(tallies, tally => {
        const line = formatRelayTally(tally)
        expect(parseRelayTally(line)).toEqual(tally)
        expect(line.length).toBeLessThan(MAX_RELAY_TALLY_LINE)
      }),
    )
  })
  test('may have the maximum number of recent addresses', () => {
    const recent = Array<IpAddress>(MAX_RECENT).fill(toAddress('192.0.2.7'))
    const tally = { at: 1, service: 'gate', counts: { relayed: 0, refused: 20, undecided: 0, never: 0 }, recent }
    expect(parseRelayTally(formatRelayTally(tally))).toEqual(tally)
  })
  const good = 'tally v=1 at=1 service=gate relayed=1 refused=2 undecided=3 never=4 recent='
  test.each([
    '',
    'tally v=1',
    good.replace('v=1', 'v=2'),
    good.replace('at=1', 'at=-1'),
    good.replace('refused=2', 'refused='),
    good.replace('refused=2', 'refused=1e3'),
    good.replace('never=4', 'other=4'),
    good.replace('service=gate', 'service=a%20b'),
    `${good}192.0.2.7,`,
    `${good}mail.example.org`,
    good +
      Array(MAX_RECENT + 1)
        .fill('192.0.2.7')
        .join(','),
    good.replace(' recent=', ''),
    good.replace('recent=', 'more='),
    good.replace('tally', 'TALLY'),
    good.replace('service=', 'more='),
    good.replace(' at=1', ' more=1'),
    `${good} more=1`,
  ])('%j is not a tally', line => {
    expect(parseRelayTally(good)).toBeDefined()
    expect(parseRelayTally(line)).toBeUndefined()
  })
})

describe('messages of a device', () => {
  test('are parsed back', () => {
    const device = fc.string({ minLength: 1, maxLength: 64, unit: 'grapheme' }).filter(name => !name.includes('\0'))
    fc.assert(
      fc.property(device, fc.nat({ max: 999_999_999 }), fc.nat({ max: 999_999_999_999 }), (name, count, at) => {
        expect(parseDeviceMessages(formatDeviceMessages({ device: name, count, at }))).toEqual({
          device: name,
          count,
          at,
        })
      }),
    )
  })
  test.each([
    'messages v=1 at=1 device= count=1',
    'messages v=2 at=1 device=a count=1',
    'messages v=1 at=1 device=a%00 count=1',
    'messages v=1 at=1 device=a count=-1',
    'messages v=1 at=1 device=a count=1 more=1',
    `messages v=1 at=1 device=${'a'.repeat(766)} count=1`,
  ])('%j is not a number of messages', line => {
    expect(parseDeviceMessages(line)).toBeUndefined()
  })
})

describe('faults of a client', () => {
  const time = fc.integer({ min: 0, max: 999_999_999_999 })
  const anyFaults = fc.record(
    { auth_refused: time, hello_replaced: time, line_ends_repaired: time },
    { requiredKeys: [], noNullPrototype: true },
  )

  test('format and parse are inverse', () => {
    fc.assert(
      fc.property(anyFaults, faults => {
        expect(parseClientFaults(formatClientFaults(faults))).toEqual(faults)
      }),
    )
    fc.assert(
      fc.property(addresses, address => {
        expect(parseFaultsQuery(formatFaultsQuery(address))).toBe(address)
      }),
    )
  })

  test('are one line in a fixed order, with the names of the log events', () => {
    expect(formatClientFaults({})).toBe('faults')
    expect(formatClientFaults({ line_ends_repaired: 2, auth_refused: 1 })).toBe(
      'faults auth_refused=1 line_ends_repaired=2',
    )
    expect(parseClientFaults('faults later_fault=3 hello_replaced=1764000000')).toEqual({ hello_replaced: 1764000000 })
    expect(parseClientFaults(`faults ${'a'.repeat(32)}=123456789012`)).toEqual({})
  })

  test.each([
    ...['', 'fault', 'faults ', 'faults x', 'faults auth_refused=', 'faults auth_refused=1 ', 'xfaults', 'faultsx'],
    ...['faults auth_refused=1x', 'faults auth_refused=1\n', 'faults AUTH=1', `faults ${'a'.repeat(33)}=1`],
    ...['faults auth_refused=1234567890123', 'faults =1'],
  ])('%j is not an answer', line => {
    expect(parseClientFaults(line)).toBeUndefined()
  })

  test.each([
    ...['', 'faults', 'faults v=2 ip=192.0.2.7', 'xfaults v=1 ip=192.0.2.7', 'faults v=1 ip=', 'faults v=1 ip=x'],
    ...['faults v=1 ip=192.0.2.7 x', 'faults v=1 ip=192.0.2.7\r\r'],
  ])('%j is not a query', line => {
    expect(parseFaultsQuery(line)).toBeUndefined()
  })

  test('a query may end with a CR', () => {
    expect(parseFaultsQuery('faults v=1 ip=192.0.2.7\r')).toBe('192.0.2.7')
  })
})
