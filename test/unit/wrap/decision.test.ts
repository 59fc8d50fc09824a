import { expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { type Decision, decide, logDecision, relayVariables, verdictOf } from '../../../src/wrap/decision.ts'
import { shareDecisions } from '../../../src/wrap/gate/gate-setup.ts'

const ip = parseIpAddress('192.0.2.7')

test('those who ask meanwhile share the answer; nobody gets one of yesterday', async () => {
  let asked = 0
  const { promise, resolve } = Promise.withResolvers<Decision>()
  const decideOnce = shareDecisions(() => {
    asked += 1
    return asked === 1 ? promise : Promise.resolve({ relay: false, reason: 'no_grant' })
  })
  const both = Promise.all([decideOnce(ip), decideOnce(ip)])
  resolve({ relay: true, until: 1, login: 'ann' })
  expect((await both).map(({ relay }) => relay)).toEqual([true, true])
  expect(asked).toBe(1)
  // Revoked in between: refused at the next connection.
  expect(await decideOnce(ip)).toEqual({ relay: false, reason: 'no_grant' })
})

test('an address on the never-list is not even asked about', async () => {
  const ask = () => Promise.reject(new Error('asked'))
  expect(await decide(ip, { ask, refusal: () => 'never', timeoutMs: 100 })).toEqual({ relay: false, reason: 'never' })
  expect(await decide(undefined, { ask, refusal: () => undefined, timeoutMs: 100 })).toEqual({
    relay: false,
    reason: 'no_address',
  })
})

test('the deadline counts even if nobody listens to its signal', async () => {
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

test('a decision counts as what it was: a doubt is no refusal', async () => {
  const verdict = async (ask: () => Promise<undefined | { until: number; login: string }>, never?: string) =>
    verdictOf(await decide(ip, { ask, refusal: () => never, timeoutMs: 1000 }))
  expect(await verdict(async () => ({ until: 1, login: 'ann' }))).toBe('relayed')
  expect(await verdict(async () => undefined)).toBe('refused')
  expect(await verdict(() => Promise.reject(new Error('away')))).toBe('undecided')
  for (const reason of ['loopback', 'never', 'proxy', 'own', 'unnamed_client'])
    expect(await verdict(async () => undefined, reason)).toBe('never')
  // The policy door's own no to a client that has a grant.
  expect(verdictOf({ relay: false, reason: 'sender' })).toBe('refused')
})
