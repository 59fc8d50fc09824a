import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { LOG_EVENTS } from '../../../src/base/log-events.ts'
import {
  formatLoginAnswer,
  formatLoginEvent,
  LOGIN_REFUSALS,
  type LoginAnswer,
  type LoginEvent,
  MAX_LOGIN_EVENT_LINE,
  parseLoginAnswer,
  parseLoginEvent,
} from '../../../src/wire/login-event.ts'
import { anyIpAddress } from './arbitraries.ts'

const WIRE = new URL('../../../docs/WIRE.md', import.meta.url)
const letters = 'abcXYZ019._-'
/** A lone `-` means that no id could be read. */
const anyId = fc.string({ unit: fc.constantFrom(...letters), minLength: 1, maxLength: 64 }).filter(id => id !== '-')
const anyUser = fc.string({ unit: 'binary', maxLength: 255 }).map(text => text.toWellFormed().replaceAll('\0', ''))

const anyEvent: fc.Arbitrary<LoginEvent> = fc.record(
  {
    id: anyId,
    ip: anyIpAddress,
    daemon: fc.string({ unit: fc.constantFrom(...letters, '/'), minLength: 1, maxLength: 32 }),
    tls: fc.boolean(),
    method: fc.constantFrom('pass', 'apop', 'sasl'),
    user: anyUser,
    age: fc.nat(999_999),
  },
  { requiredKeys: ['id', 'ip', 'daemon', 'tls', 'method', 'user'] },
)

const LINE = 'login v=1 id=7f3a.12 ip=192.0.2.7 daemon=popup tls=1 method=pass user=ann%40example.org'

describe('event', () => {
  test('the documented line', () => {
    const event = parseLoginEvent(LINE)
    expect(event).toEqual({
      id: '7f3a.12',
      ip: '192.0.2.7',
      daemon: 'popup',
      tls: true,
      method: 'pass',
      user: 'ann@example.org',
    })
    expect('reason' in event ? event.reason : formatLoginEvent(event)).toBe(LINE)
  })

  test('a late event contains its age in seconds', () => {
    const event = parseLoginEvent(`${LINE} age=600`)
    expect(event).toMatchObject({ user: 'ann@example.org', age: 600 })
    expect('reason' in event ? event.reason : formatLoginEvent(event)).toBe(`${LINE} age=600`)
  })

  test('format and parse are inverse, on one line within the bound', () => {
    fc.assert(
      fc.property(anyEvent, event => {
        const line = formatLoginEvent(event)
        expect(line).toMatch(/^[\x20-\x7e]+$/)
        expect(line.length).toBeLessThanOrEqual(MAX_LOGIN_EVENT_LINE)
        expect(parseLoginEvent(line)).toEqual(event)
      }),
    )
  })

  test('the longest name that the table accepts fits the line, in any script', () => {
    const ip = fc.sample(anyIpAddress, 1)[0]
    if (ip === undefined) throw new Error('no address')
    const event = {
      id: 'x'.repeat(64),
      ip,
      daemon: 'd'.repeat(32),
      tls: true,
      method: 'sasl',
      user: '𝒶'.repeat(255),
    } as const
    expect(formatLoginEvent(event).length).toBeLessThanOrEqual(MAX_LOGIN_EVENT_LINE)
    expect(parseLoginEvent(formatLoginEvent(event))).toEqual(event)
    expect(parseLoginEvent(formatLoginEvent({ ...event, user: '𝒶'.repeat(300) }))).toEqual(event)
  })

  test.each([
    [LINE.replace('v=1', 'v=2'), 'version'],
    [LINE.replace('v=1 ', ''), 'version'],
    [`${LINE} more=1`, 'key'],
    [LINE.replace(' tls=1', ''), 'key'],
    [LINE.replace('user=', 'name='), 'key'],
    [LINE.replace('tls=1', 'tls=yes'), 'value'],
    [`${LINE} age=`, 'value'],
    [`${LINE} age=-1`, 'value'],
    [`${LINE} age=1.5`, 'value'],
    [`${LINE} age=1000000`, 'value'],
    [LINE.replace('user=ann%40example.org', 'age=7'), 'key'],
    [LINE.replace('tls=1', 'tls='), 'value'],
    [LINE.replace('192.0.2.7', '192.0.2.007'), 'value'],
    [LINE.replace('192.0.2.7', 'mx.example'), 'value'],
    [LINE.replace('method=pass', 'method=PASS'), 'value'],
    [LINE.replace('popup', 'p:p'), 'value'],
    [LINE.replace('ann%40', 'ann%zz'), 'value'],
    [LINE.replace('ann%40', '%00'), 'value'],
    [LINE.replace('ann', 'a'.repeat(256)), 'value'],
  ])('refused with its id: %s', (line, reason) => {
    expect(parseLoginEvent(line)).toEqual({ reason, id: '7f3a.12' })
  })

  test.each([
    ['', 'syntax'],
    ['login', 'syntax'],
    ['login ', 'syntax'],
    ['LOGIN v=1', 'syntax'],
    [LINE.replace('id=', 'id= '), 'syntax'],
    [`${LINE} user=x`, 'syntax'],
    [LINE.replace('7f3a.12', 'a/b'), 'value'],
    [LINE.replace('7f3a.12', ''), 'value'],
  ])('refused without an id: %j', (line, reason) => {
    expect(parseLoginEvent(line)).toEqual({ reason, id: '-' })
  })

  test('no line makes it throw, and every accepted event is valid', () => {
    const nearMiss = fc
      .tuple(fc.constant(LINE), fc.nat(LINE.length), fc.string({ unit: 'binary' }))
      .map(([line, at, noise]) => line.slice(0, at) + noise + line.slice(at + 1))
    fc.assert(
      fc.property(fc.oneof(fc.string({ unit: 'binary' }), nearMiss), line => {
        const event = parseLoginEvent(line)
        if ('reason' in event) expect(event.id).toMatch(/^[A-Za-z0-9._-]{1,64}$/)
        else expect(parseLoginEvent(formatLoginEvent(event))).toEqual(event)
      }),
    )
  })
})

test('WIRE and the log line of popup have every reason of a refused login', () => {
  const section =
    readFileSync(WIRE, 'utf8')
      .split('\n## ')
      .find(text => text.startsWith('Login event')) ?? ''
  const documented = [...section.matchAll(/^\| `([a-z]+)` \| [A-Z]/gm)].map(([, reason]) => reason)
  expect(documented).toEqual(LOGIN_REFUSALS)
  expect(LOG_EVENTS.login_accepted.reasons.toSorted()).toEqual(LOGIN_REFUSALS.toSorted())
})

describe('answer', () => {
  const anyAnswer: fc.Arbitrary<LoginAnswer> = fc.oneof(
    fc.record({ verdict: fc.constant('committed' as const), id: anyId, until: fc.nat() }),
    fc.record({ verdict: fc.constant('queued' as const), id: anyId }),
    fc.record({
      verdict: fc.constant('refused' as const),
      id: anyId,
      reason: fc.constantFrom(...LOGIN_REFUSALS),
    }),
  )

  test('format and parse are inverse', () => {
    fc.assert(
      fc.property(anyAnswer, answer => {
        expect(parseLoginAnswer(formatLoginAnswer(answer))).toEqual(answer)
      }),
    )
  })

  test.each([
    ['ok id=7f3a.12 committed until=1764000000', { verdict: 'committed', id: '7f3a.12', until: 1764000000 }],
    ['ok id=7f3a.12 queued', { verdict: 'queued', id: '7f3a.12' }],
    ['refused id=- reason=version', { verdict: 'refused', id: '-', reason: 'version' }],
  ])('%s', (line, answer) => {
    expect(parseLoginAnswer(line)).toEqual(answer)
  })

  test.each([
    '',
    'ok',
    'ok id=a',
    'ok id=a committed',
    'ok id=a committed until=',
    'ok id=a committed until=-1',
    'ok id=a committed until=1e9',
    'ok id=a committed until=1764000000 ',
    'ok id=a committed until=1764000000\n',
    'ok id=a b queued',
    'OK id=a queued',
    'refused id=a',
    'refused id=a reason=',
    'refused id=a reason=no way',
    'refused id=a reason=unknown',
  ])('%j is not an answer: only an exact positive answer is one', line => {
    expect(parseLoginAnswer(line)).toBeUndefined()
  })
})
