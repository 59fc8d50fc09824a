import { describe, expect, onTestFinished, test, vi } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import type { RelayGrant } from '../../../src/grants/devices/mail-rules.ts'
import type { Ungrantable } from '../../../src/grants/never-list.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import {
  type Decision,
  decide,
  logAnswer,
  logDecision,
  MAIL_REFUSED,
  relayVariables,
  UNNAMED_CLIENT,
  verdictOf,
} from '../../../src/wrap/decision.ts'
import { shareDecisions } from '../../../src/wrap/gate/gate-setup.ts'

const ip = parseIpAddress('192.0.2.7')

describe('queries about one address', () => {
  const yes: Decision = { relay: true, until: 1, login: 'ann' }
  const no: Decision = { relay: false, reason: 'no_grant' }
  /** A store whose queries are answered by the test, in their order. */
  function store(timeoutMs = 1000) {
    let now = 0
    const queries: { readonly timeoutMs: number; readonly answer: (decision: Decision) => void }[] = []
    const ask = shareDecisions((_, left) => new Promise(answer => queries.push({ timeoutMs: left, answer })), {
      timeoutMs,
      clock: () => now,
    })
    const begun = (count: number) => vi.waitFor(() => expect(queries).toHaveLength(count))
    const pass = (milliseconds: number): void => {
      now += milliseconds
    }
    return { ask, queries, begun, pass }
  }

  test('made in one turn share a statement, and no result is kept after it', async () => {
    const { ask, queries, begun } = store()
    const both = Promise.all([ask(ip), ask(ip)])
    await begun(1)
    queries[0]?.answer(yes)
    expect(await both).toEqual([yes, yes])
    // Blocked in between: refused at the next query.
    const later = ask(ip)
    await begun(2)
    queries[1]?.answer(no)
    expect(await later).toEqual(no)
  })

  test('made during a statement get the next one, because its answer may be older than the query', async () => {
    const { ask, queries, begun } = store()
    const before = ask(ip)
    await begun(1)
    // A login is committed here and its client reads +OK, or a block is answered.
    const after = [ask(ip), ask(ip)]
    queries[0]?.answer(no)
    expect(await before).toEqual(no)
    await begun(2)
    queries[1]?.answer(yes)
    expect(await Promise.all(after)).toEqual([yes, yes])
    expect(queries).toHaveLength(2)
  })

  test('the wait for the previous statement counts against the time limit', async () => {
    const { ask, queries, begun, pass } = store(1000)
    void ask(ip)
    await begun(1)
    pass(100)
    void ask(ip)
    pass(700)
    queries[0]?.answer(no)
    await begun(2)
    expect(queries.map(({ timeoutMs }) => timeoutMs)).toEqual([1000, 300])
  })

  test('other addresses do not wait', async () => {
    const { ask, begun } = store()
    void ask(ip)
    void ask(parseIpAddress('192.0.2.8'))
    await begun(2)
  })
})

test('an ungrantable address causes no statement', async () => {
  const ask = () => Promise.reject(new Error('asked'))
  expect(await decide(ip, { ask, refusal: () => 'never', timeoutMs: 100 })).toEqual({ relay: false, reason: 'never' })
  expect(await decide(undefined, { ask, refusal: () => undefined, timeoutMs: 100 })).toEqual({
    relay: false,
    reason: 'no_address',
  })
})

test('the deadline applies even if the statement ignores the abort signal', async () => {
  const decision = await decide(ip, { ask: () => new Promise(() => {}), refusal: () => undefined, timeoutMs: 20 })
  expect(decision).toMatchObject({ relay: false, reason: 'error', error: { message: 'no answer within 20 ms' } })
})

test('a login cannot end its variable or begin a log line', () => {
  const decision: Decision = { relay: true, until: 5, login: 'ann\0X=1\nwrap: level=info event=relay_allowed' }
  expect(relayVariables(decision, '@x')).toEqual({
    RELAYCLIENT: '@x',
    AUTHRELAY_LOGIN: 'annX=1\nwrap: level=info event=relay_allowed',
    AUTHRELAY_UNTIL: '5',
  })
  const lines: string[] = []
  logDecision(createLog('wrap', { write: line => lines.push(line) }), decision, { ip })
  expect(lines.join('').trimEnd().split('\n')).toHaveLength(1)
})

test('a decision is counted by its kind: a missing answer does not count as a refusal', async () => {
  const verdict = async (ask: () => Promise<undefined | { until: number; login: string }>, never?: Ungrantable) =>
    verdictOf(await decide(ip, { ask, refusal: () => never, timeoutMs: 1000 }))
  expect(await verdict(async () => ({ until: 1, login: 'ann' }))).toBe('relayed')
  expect(await verdict(async () => undefined)).toBe('refused')
  expect(await verdict(() => Promise.reject(new Error('away')))).toBe('undecided')
  for (const reason of ['loopback', 'never', 'proxy', 'own'] as const)
    expect(await verdict(async () => undefined, reason)).toBe('never')
  expect(verdictOf(UNNAMED_CLIENT)).toBe('never')
  // A refusal of the policy service to a client with a grant.
  expect(verdictOf(MAIL_REFUSED)).toBe('refused')
})

test('a grant whose device has ended or is at another place opens nothing', async () => {
  const device = {
    name: 'copier',
    senders: [],
    recipientDomains: [],
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
  } as const
  const decisionOf = (grant: RelayGrant | undefined) =>
    decide(ip, { ask: async () => grant, refusal: () => undefined, timeoutMs: 1000 })
  const grant = { until: 5, login: 'ann', device }
  expect(await decisionOf(grant)).toMatchObject({ relay: true, ...grant })
  expect(await decisionOf({ ...grant, device: { ...device, ended: true } })).toMatchObject({
    relay: false,
    reason: 'device_ended',
  })
  expect(await decisionOf({ ...grant, device: { ...device, elsewhere: true } })).toMatchObject({
    relay: false,
    reason: 'device_network',
  })
  expect(await decisionOf(undefined)).toEqual({ relay: false, reason: 'no_grant' })
  const lines: string[] = []
  const log = createLog('wrap', { write: line => lines.push(line) })
  logDecision(log, await decisionOf({ ...grant, device: { ...device, ended: true } }), { ip })
  expect(lines.join('')).toMatch(/event=relay_refused.* device=copier/)
})

test('a client that its proxy does not name has no relay, and counts as never', () => {
  expect(UNNAMED_CLIENT).toEqual({ relay: false, reason: 'unnamed_client' })
  expect(verdictOf(UNNAMED_CLIENT)).toBe('never')
})

test('the relay of an address with several logins has them, and says whether it is shared', async () => {
  const rules = {
    withoutDevice: 'relay',
    sharedAddresses: 'devices',
    sharedLogins: 2,
    minuteOfDay: () => 0,
    placesOf: () => [],
  } as const
  const ask = (logins: readonly string[]) => async () => ({ until: 5, login: 'ann', logins })
  const decisionOf = (logins: readonly string[], given?: typeof rules) =>
    decide(ip, {
      ask: ask(logins),
      refusal: () => undefined,
      timeoutMs: 1000,
      ...(given === undefined ? {} : { rules: given }),
    })
  const opened = { relay: true, until: 5, login: 'ann' }
  const neighbours = { logins: ['ben', 'ann'], devices: [], isShared: true, onlyDevices: false }
  expect(await decisionOf(['ben', 'ann'], rules)).toEqual({ ...opened, neighbours })
  const alone = await decisionOf([], rules)
  expect(alone).toEqual(opened)
  expect(alone).not.toHaveProperty('neighbours')
  expect(await decisionOf(['ben', 'ann'])).toEqual({ ...opened, neighbours: { ...neighbours, isShared: false } })
})

test('the deadline aborts the statement, and no timer is left', async () => {
  vi.useFakeTimers()
  onTestFinished(() => void vi.useRealTimers())
  let signal: AbortSignal | undefined
  const late = decide(ip, {
    ask: (_, given) => {
      signal = given
      return new Promise(() => {})
    },
    refusal: () => undefined,
    timeoutMs: 3000,
  })
  await vi.advanceTimersByTimeAsync(2999)
  expect(signal?.aborted).toBe(false)
  await vi.advanceTimersByTimeAsync(1)
  expect(signal?.aborted).toBe(true)
  expect(await late).toMatchObject({ relay: false, reason: 'error' })
  await decide(ip, { ask: async () => undefined, refusal: () => undefined, timeoutMs: 3000 })
  expect(vi.getTimerCount()).toBe(0)
})

test('the smtpd receives the login and the end of a grant', () => {
  expect(relayVariables({ relay: true, until: undefined, login: undefined }, '')).toEqual({ RELAYCLIENT: '' })
  expect(relayVariables({ relay: false, reason: 'no_grant' }, '')).toEqual({})
})

test('each decision is a line; for a client without a grant that a service only looks up, a line at level debug', () => {
  const lines: string[] = []
  const log = createLog('wrap', { level: 'debug', write: line => lines.push(line) })
  const fields = { ip: '192.0.2.7', service: 'policy' }
  const decisions: readonly Decision[] = [
    { relay: true, until: 5, login: 'ann' },
    { relay: false, reason: 'no_grant' },
    { relay: false, reason: 'error', error: new Error('store is down') },
  ]
  for (const decision of decisions) logDecision(log, decision, fields)
  for (const decision of decisions) logAnswer(log, decision, fields)
  const where = 'ip=192.0.2.7 service=policy'
  const yes = `wrap: level=info event=relay_allowed ${where} user=ann until=5\n`
  const error = `wrap: level=error event=decision_failed ${where} relay=0 reason="store is down"\n`
  const no = (level: string) => `wrap: level=${level} event=relay_refused ${where} reason=no_grant\n`
  expect(lines).toEqual([yes, no('info'), error, yes, no('debug'), error])
})
