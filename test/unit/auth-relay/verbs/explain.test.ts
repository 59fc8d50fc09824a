import { once } from 'node:events'
import { createServer } from 'node:net'
import { describe, expect, test } from 'vitest'
import {
  explainMail,
  faultsOf,
  formatExplanation,
  jsonOf as jsonOfExplanation,
  limitsLeft,
  withLimits,
} from '../../../../src/auth-relay/verbs/grants/explain.ts'
import { formatGrants, jsonOf } from '../../../../src/auth-relay/verbs/grants/show.ts'
import type { Explanation, Grant, GrantRow, Rule } from '../../../../src/grants/grant-store.ts'
import { parseSettings } from '../../../../src/settings/settings.ts'
import { parseIpAddress, parseNetwork } from '../../../../src/wire/ip-address.ts'

const plain = { good: (text: string) => text, bad: (text: string) => text, faint: (text: string) => text }
const at = new Date(2026, 10, 22, 18, 30)

function explanation(decided: Rule, ...others: Rule[]): Explanation {
  const ip = parseIpAddress('192.0.2.7')
  if (ip === undefined) throw new Error('no address')
  return { ip, at, relay: decided.relay, decided, rules: [decided, ...others], lastRelay: null }
}
const none: Rule = {
  rule: 'never-seen',
  relay: false,
  network: '192.0.2.7',
  login: null,
  owner: null,
  reason: null,
  daemon: null,
  method: null,
  session: null,
  host: null,
  since: null,
  until: null,
}
const grant: Rule = {
  ...none,
  network: null,
  rule: 'grant',
  relay: true,
  daemon: 'popup',
  login: 'ann',
  since: new Date(2026, 10, 22, 18, 0),
  until: new Date(2026, 10, 22, 19, 0),
}

describe('an explanation in words', () => {
  test('of a positive answer: the rule, since when, until when', () => {
    expect(formatExplanation(explanation(grant), false, 1800, plain)).toBe(
      'Mail from 192.0.2.7 is relayed.\n  Opened by: popup login ann, at 2026-11-22 18:00:00 until 2026-11-22 19:00:00 (30 min left)\n',
    )
  })

  test('of the last mail: the time, and the service and the host that relayed it', () => {
    const lastRelay = { at: new Date(2026, 10, 22, 18, 10), service: 'policy', host: 'smtp1\u0007' }
    expect(formatExplanation({ ...explanation(grant), lastRelay }, false, 1800, plain)).toMatch(
      /\nAlso known:\n {2}Last relayed mail: at 2026-11-22 18:10:00 by policy on smtp1\\u\{7\}\n$/,
    )
  })

  test('of a negative answer: the remedy', () => {
    const text = formatExplanation(explanation(none), false, 1800, plain)
    expect(text).toMatch(/^Mail from 192\.0\.2\.7 is not relayed\.\n {2}Never seen: /)
    expect(text).toContain('open the mailbox by POP3 from this address; the login opens the relay for 30 min')
  })

  test('of an expired login: its end, and that a new login opens the relay again', () => {
    const expired: Rule = { ...grant, rule: 'expired', relay: false, until: new Date(2026, 10, 22, 18, 29) }
    expect(formatExplanation(explanation(expired), false, 1800, plain)).toBe(
      `Mail from 192.0.2.7 is not relayed.
  Closed again: popup login ann, at 2026-11-22 18:00:00 until 2026-11-22 18:29:00 (1 min ago)
  What to do: open the mailbox by POP3 from this address again; each login opens the relay for 30 min.
`,
    )
  })

  test('of a refused login: the whole reason, also if it contains a colon', () => {
    const refused: Rule = { ...grant, rule: 'refused-login', relay: false, reason: 'blocked: ticket', host: 'pop1' }
    const text = formatExplanation(explanation({ ...refused, until: null }), false, 1800, plain)
    expect(text).toContain('Login refused: popup login ann on pop1 refused: blocked: ticket, since 2026-11-22')
    expect(text).toContain('the reason for the refusal is blocked: ticket. Change [grants]')
  })

  test('of a grant that a block removed before its end', () => {
    const removed: Rule = { ...grant, rule: 'expired', relay: false, method: 'pass', session: 'a.1' }
    expect(formatExplanation(explanation(removed), false, 1800, plain)).toContain(
      'Closed again: popup pass login ann session a.1, the grant was removed, at 2026-11-22 18:00:00',
    )
  })

  test('of the past: no advice, and the other known facts', () => {
    const block: Rule = { ...none, rule: 'block', owner: 'root', reason: 'spam\u001b[2J' }
    expect(formatExplanation(explanation(block, grant), true, 1800, plain)).toBe(
      `At 2026-11-22 18:30:00 mail from 192.0.2.7 was not relayed.
  Blocked: 192.0.2.7 blocked by root: spam\\u{1b}[2J
Also known:
  Opened by: popup login ann, at 2026-11-22 18:00:00 until 2026-11-22 19:00:00 (30 min left)
`,
    )
  })
})

describe('show', () => {
  const network = parseNetwork('192.0.2.7')
  if (network === undefined) throw new Error('no network')
  const row: GrantRow = {
    network,
    until: new Date(2026, 10, 22, 19, 0),
    user: 'ann\u0007',
    daemon: 'popup',
    tls: null,
    first: at,
    last: at,
    logins: 3,
    host: 'pop1',
  }

  test('a table for people', () => {
    expect(formatGrants([row], at, 200)).toBe(
      `ADDRESS    UNTIL                         LOGIN     DAEMON  HOST  TLS  FIRST                LAST                 LOGINS
192.0.2.7  2026-11-22 19:00:00 (30 min)  ann\\u{7}  popup   pop1  -    2026-11-22 18:30:00  2026-11-22 18:30:00       3
`,
    )
    expect(formatGrants([], at, 80)).toBe('No address has a grant now.\n')
  })

  test('the same for scripts', () => {
    expect(jsonOf(row)).toEqual({
      address: '192.0.2.7',
      until: row.until.toISOString(),
      login: 'ann\u0007',
      daemon: 'popup',
      tls: null,
      first: at.toISOString(),
      last: at.toISOString(),
      logins: 3,
      host: 'pop1',
    })
  })
})

describe('the answer of the gate to mail', () => {
  const ip = parseIpAddress('192.0.2.7')
  if (ip === undefined) throw new Error('no address')
  const device: NonNullable<Grant['device']> = {
    name: 'copier-2',
    senders: ['scan@example.org'],
    recipientDomains: ['example.org'],
    messagesPerHour: 60,
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
  const found: Grant = {
    ip,
    source: 'login',
    login: 'copier2',
    until: null,
    age: 1,
    secondsLeft: null,
    device,
    logins: [],
    granted: [],
    devices: [],
  }
  const inWords = (mail: ReturnType<typeof withLimits> | ReturnType<typeof explainMail>) =>
    formatExplanation({ ...explanation(grant), lastRelay: null }, false, 1800, plain, { mail })
  const explained = (grant: Partial<Grant>, envelope: { sender?: string; to?: string }, wrap = '') =>
    explainMail({ ...found, ...grant }, ip, parseSettings(`[wrap]\n${wrap}\n`, 'test', {}).settings, envelope)

  test('a device: its rules, and the reply to each part of the envelope', () => {
    const mail = explained({}, { sender: 'ceo@example.org', to: 'bob@example.org' })
    expect(mail).toMatchObject({ refused: true, closed: null, sender: { rule: 'device_sender' }, recipient: null })
    expect(
      formatExplanation(explanation(grant, none), false, 1800, plain, { mail }),
    ).toBe(`Mail from 192.0.2.7 is relayed, but this sender or recipient is refused.
  Opened by: popup login ann, at 2026-11-22 18:00:00 until 2026-11-22 19:00:00 (30 min left)
  Device: copier-2, sends as scan@example.org; to example.org; at most 60 messages an hour
  Sender: 550 5.7.1 device "copier-2" may not send as <ceo@example.org>; set its sender to scan@example.org (device_sender)
  Recipient: may pass
Also known:
  Never seen: no login from 192.0.2.7 is known
`)
    const right = explained({}, { sender: 'scan@example.org', to: 'bob@example.org' })
    expect(right?.refused).toBe(false)
    expect(inWords(right)).toMatch(/^Mail from 192\.0\.2\.7 is relayed\.\n/)
  })

  test('the remaining limits are those that the gate has not counted, and without a gate the setting is named', async () => {
    const limited = { ...device, recipientsPerDay: 500 }
    const server = createServer(socket =>
      socket.once('data', query => {
        expect(String(query)).toBe('counts v=1 device=copier-2\n')
        socket.end('counts messages_hour=48 messages_day=50 recipients_hour=48 recipients_day=501\n')
      }),
    ).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    if (address === null || typeof address === 'string') expect.unreachable()
    const listen = (port: number) =>
      parseSettings(`[wrap]\nquery_listen = ["127.0.0.1:${port}"]\n`, 'test', {}).settings
    const mail = explained({ device: limited }, {})
    if (mail === undefined) expect.unreachable()
    const left = await limitsLeft(limited, listen(address.port))
    expect(left).toEqual({ left: { messagesPerHour: 12, recipientsPerDay: 0 } })
    const exhausted = withLimits(mail, left)
    expect(exhausted.refused).toBe(true)
    expect(inWords(exhausted)).toMatch(/^Mail from 192\.0\.2\.7 is not relayed\.\n/)
    expect(inWords(exhausted)).toContain('  Left at this gate: 12 of 60 messages an hour, 0 of 500 recipients a day\n')
    expect(withLimits(mail, { left: { messagesPerHour: 12 } }).refused).toBe(false)
    server.close()
    await once(server, 'close')
    const unreachable = await limitsLeft(limited, listen(address.port))
    expect(unreachable.leftUnknown).toMatch(/^the gate at 127\.0\.0\.1:\d+ does not answer: connect ECONNREFUSED/)
    const unset = await limitsLeft(limited, parseSettings('', 'test', {}).settings)
    expect(inWords(withLimits(mail, unset))).toContain('Left of the limits: unknown; set wrap.query_listen')
    expect(await limitsLeft({ ...device, messagesPerHour: 0 }, listen(1))).toEqual({})
    expect(await limitsLeft(null, listen(1))).toEqual({})
  })

  test('a device that tries AUTH: its administrator switches authentication off', async () => {
    const server = createServer(socket =>
      socket.once('data', query => {
        expect(String(query)).toBe('faults v=1 ip=192.0.2.7\n')
        socket.end('faults auth_refused=1764000000 of_later_version=1\n')
      }),
    ).listen(0, '127.0.0.1')
    await once(server, 'listening')
    const address = server.address()
    if (address === null || typeof address === 'string') expect.unreachable()
    const settings = (front: boolean) =>
      parseSettings(`[wrap]\nfront = ${front}\nquery_listen = ["127.0.0.1:${address.port}"]\n`, 'test', {}).settings
    const faults = await faultsOf(ip, settings(true))
    expect(faults).toEqual({ auth_refused: 1_764_000_000 })
    const text = formatExplanation(explanation(none), false, 1800, plain, { faults })
    expect(text).toMatch(
      /\n {2}Fault of the client: it tried AUTH, which the mail server does not offer, last at 20\d\d-.*\n {2}What to do: switch authentication off in the device\n$/,
    )
    expect(jsonOfExplanation(explanation(none), { faults })).toMatchObject({
      faults: { auth_refused: '2025-11-24T16:00:00.000Z' },
    })
    expect(await faultsOf(ip, settings(false))).toEqual({})
    server.close()
    await once(server, 'close')
    expect(await faultsOf(ip, settings(true))).toEqual({})
  })

  test('a device that may not send now is closed for every envelope', () => {
    expect(explained({ device: { ...device, ended: true } }, {})).toMatchObject({
      refused: true,
      closed: 'device_ended',
    })
  })

  test.for([
    ['device_ended', { device: { ...device, ended: true } }, '', 'auth-relay device set copier-2 --until DATE'],
    [
      'device_network',
      { device: { ...device, elsewhere: true } },
      '',
      'auth-relay device set copier-2 --from NETWORKS',
    ],
    [
      'no_device',
      { device: null },
      'without_device = "refuse"',
      'auth-relay device adopt copier2, or change wrap.without_device',
    ],
    [
      'shared_address',
      { device: null, logins: ['ann', 'bob', 'copier2'] },
      'shared_addresses = "nobody"',
      'auth-relay device adopt copier2, or change wrap.shared_addresses',
    ],
  ] as const)('%s: the answer is no, with the remedy', ([rule, changes, wrap, remedy]) => {
    const mail = explained(changes, {}, wrap)
    expect(inWords(mail)).toMatch(/^Mail from 192\.0\.2\.7 is not relayed\.\n/)
    expect(inWords(mail)).toContain(`  Closed by: ${rule}\n  What to do: ${remedy}\n`)
    expect(jsonOfExplanation(explanation(grant), { mail })).toMatchObject({ relay: false, mail: { closed: rule } })
  })

  test('a shared address: its logins, and that only they may send', () => {
    const shared = { device: null, login: 'ann', logins: ['ann', 'bob', 'eve'] }
    const mail = explained(shared, { sender: 'ceo@example.org' })
    expect(mail).toMatchObject({ sharedBy: ['ann', 'bob', 'eve'], sender: { rule: 'shared_address' }, refused: true })
    expect(inWords(mail)).toContain('Shared address: ann, bob, eve')
    expect(explained(shared, { sender: 'bob@example.org' })?.refused).toBe(false)
    expect(explained(shared, {}, 'shared_addresses = "nobody"')?.closed).toBe('shared_address')
    expect(explained({ device: null }, {}, 'without_device = "refuse"')?.closed).toBe('no_device')
  })

  test('an address that its last login closes: the sender of another device there is relayed by the services that know it', () => {
    const copier = { login: 'copier2', device }
    const last = {
      login: 'bob',
      device: null,
      logins: ['bob', 'copier2'],
      granted: ['bob', 'copier2'],
      devices: [copier],
    }
    const wrap = 'without_device = "refuse"\npolicy_listen = ["unix:/run/policy.sock"]'
    const mail = explained(last, { sender: 'scan@example.org' }, wrap)
    expect(mail).toMatchObject({ login: 'copier2', closed: null, closedForOthers: 'no_device', refused: false })
    expect(inWords(mail)).toMatch(/^Mail from 192\.0\.2\.7 is relayed\.\n/)
    expect(inWords(mail)).toContain('Only the policy service and the query service relay this sender.')
    for (const [envelope, settings] of [
      [{}, wrap],
      [{ sender: 'bob@example.org' }, wrap],
      [{ sender: '' }, wrap],
      [{ sender: 'scan@example.org' }, 'without_device = "refuse"'],
    ] as const)
      expect(explained(last, envelope, settings)).toMatchObject({
        closed: 'no_device',
        closedForOthers: null,
        refused: true,
      })
  })

  test('an allowance has no rules of a login', () => {
    const mail = explained(
      { source: 'allowance', login: null, device: null },
      { sender: 'x@y', to: 'z@w' },
      'sender_binding = "refuse"',
    )
    expect(mail).toMatchObject({ refused: false, sender: null, recipient: null })
    expect(inWords(mail)).toMatch(/^Mail from 192\.0\.2\.7 is relayed\.\n/)
  })
})
