import { hostname } from 'node:os'
import * as v from 'valibot'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import type { Database } from '../../src/database/database.ts'
import { int8, type Statement, timestamptz } from '../../src/database/statement.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { loginsSince, refusedSince, relaysSince, reportUsage, talliesSince } from '../../src/grants/history.ts'
import { createStatusFeed } from '../../src/grants/status-feed.ts'
import { NetworkSet, parseNetwork } from '../../src/wire/ip-address.ts'
import type { RelayTally } from '../../src/wire/usage-event.ts'
import { ip as toAddress } from '../harness/addresses.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

let database: TestDatabase
let writer: Database
beforeAll(async () => {
  database = await createTestDatabase()
  writer = database.open('pop3authd')
})
afterAll(() => database.remove())
beforeEach(() =>
  database.owner.script(
    'TRUNCATE grants, blocks, allowances, login_event, usage_event, gate_decisions, gate_refusals, ungrantable',
  ),
)

describe('relay_clients, as Postfix and Exim query it', () => {
  const ADDRESSES: Statement<{ address: string | null }> = {
    text: 'SELECT address FROM relay_clients ORDER BY address',
    row: v.object({ address: v.nullable(v.string()) }),
  }
  const NETWORKS: Statement<{ network: string }> = {
    text: 'SELECT network FROM relay_clients ORDER BY network',
    row: v.object({ network: v.string() }),
  }
  const MAY_RELAY: Statement<{ client: string }> = {
    text: 'SELECT client FROM unnest($1::text[]) WITH ORDINALITY AS asked(client, n) WHERE may_relay(client) ORDER BY n',
    row: v.object({ client: v.string() }),
  }
  const addresses = async (): Promise<readonly (string | null)[]> =>
    (await database.open('authwrap').query(ADDRESSES)).rows.map(({ address }) => address)
  const grant = (ip: string, until: string, more = "now(), 'ann'"): Promise<void> =>
    database.owner.script(
      `INSERT INTO grants (ip, until, last_auth, username, daemon) VALUES ('${ip}', ${until}, ${more}, 'x')`,
    )

  test('lists grants in force and allowances, with a text for single addresses', async () => {
    await grant('192.0.2.7', "now() + interval '1 minute'")
    await grant('192.0.2.8', 'now()')
    await grant('192.0.2.9', "now() + interval '1 hour'", "now() + interval '61 seconds', 'ann'")
    await grant('2001:db8::1', "now() + interval '1 minute'")
    await database.owner.script(
      "INSERT INTO allowances (net, reason, owner) VALUES ('198.51.100.1', '', ''), ('198.51.100.0/25', '', '')",
    )
    await database.owner.script("INSERT INTO allowances (net, reason, owner) VALUES ('2001:db8::2', '', '')")
    // No text for IPv6, because Postfix would find the text of one address as a prefix of another.
    expect(await addresses()).toEqual(['192.0.2.7', '198.51.100.1', null, null, null])
    const networks = (await database.open('authwrap').query(NETWORKS)).rows.map(({ network }) => network)
    expect(networks).toEqual(['192.0.2.7', '198.51.100.0/25', '198.51.100.1', '2001:db8::1', '2001:db8::2'])
  })

  test('ungrantable addresses are left out, and cut out of allowed networks', async () => {
    const publish = (options: Parameters<typeof grantPolicy>[0]): Promise<void> =>
      createGrantWriter(writer, grantPolicy(options)).publishUngrantable()
    const proxies = new NetworkSet(
      ['203.0.113.9', '2001:db8:1::5'].map(text => parseNetwork(text) ?? expect.unreachable()),
    )
    await publish({ trusted: { 'popup.proxy_trust': proxies } })
    for (const ip of ['203.0.113.9', '2001:db8:1::/64', '2001:db8:2::/64', '64:ff9b::c000:207']) {
      await grant(ip, "now() + interval '1 minute'")
    }
    await database.owner.script(
      `INSERT INTO allowances (net, reason, owner) VALUES ('203.0.113.8/30', '', ''), ('203.0.113.9', '', ''),
         ('64:ff9b::c633:6400/120', '', ''), ('64:ff9b::c633:6401', '', ''), ('2001:db8:3::/48', '', '')`,
    )
    const networks = async (): Promise<readonly string[]> =>
      (await database.open('authwrap').query(NETWORKS)).rows.map(({ network }) => network)
    const open = [
      '203.0.113.8',
      '203.0.113.10/31',
      '64:ff9b::c000:207',
      '64:ff9b::c633:6401',
      '2001:db8:2::/64',
      '2001:db8:3::/48',
    ]
    expect(await networks()).toEqual(open)
    expect(await addresses()).toEqual(['203.0.113.8', null, null, null, null, null])
    const asked = ['203.0.113.8', '203.0.113.9', '203.0.113.10', '203.0.113.11']
    const { rows } = await database.open('authwrap').query(MAY_RELAY, [asked])
    expect(rows.map(({ client }) => client)).toEqual(['203.0.113.8', '203.0.113.10', '203.0.113.11'])
    // A block in one part leaves the other parts.
    await database.owner.script("INSERT INTO blocks (net, reason, owner) VALUES ('203.0.113.8', '', '')")
    expect(await networks()).toEqual(open.slice(1))

    // With changed settings, addresses that were removed from never_grant can have a grant on their
    // own host.
    await database.owner.script("UPDATE ungrantable SET host = 'other' WHERE net = '2001:db8:1::5'; TRUNCATE blocks")
    await publish({})
    expect(await networks()).toContain('203.0.113.8/30')
    expect(await networks()).not.toContain('2001:db8:1::/64')
    // A host that was not seen for a month does not count.
    await database.owner.script("UPDATE ungrantable SET seen = now() - interval '31 days' WHERE host = 'other'")
    expect(await networks()).toContain('2001:db8:1::/64')
  })

  test('may_relay is true for an IPv4 address with a grant or in an allowed network, and for no other text', async () => {
    await grant('192.0.2.7', "now() + interval '1 minute'")
    await grant('192.0.2.8', 'now()')
    await grant('2001:db8::7', "now() + interval '1 minute'")
    await database.owner.script(
      `INSERT INTO allowances (net, reason, owner) VALUES ('198.51.100.0/25', '', ''), ('2001:db8:1::/48', '', '');
       INSERT INTO blocks (net, reason, owner) VALUES ('198.51.100.64/26', '', '')`,
    )
    const yes = ['192.0.2.7', '198.51.100.1', '198.51.100.63']
    const no = [
      ...['192.0.2.8', '192.0.2', '192', '198.51.100.64', '198.51.100.128', '198.51.100', '198.51.100.1/32'],
      ...['2001:db8::7', '2001:db8::7:9', '2001:db8::', '2001:db8:1::1', '::ffff:192.0.2.7', '0:0:0:0:0:ffff:c000:207'],
      ...['', 'host.example.org', '192.0.2.07', '192.0.2.7.', ' 192.0.2.7', '999.1.1.1', '198.51.100.1\n', '1.2.3.4.5'],
    ]
    const answers = await database.open('authwrap').query(MAY_RELAY, [[...yes, ...no]])
    expect(answers.rows.map(({ client }) => client)).toEqual(yes)
  })

  test('leaves out blocked networks and addresses of blocked logins', async () => {
    await grant('192.0.2.7', "'infinity'")
    await grant('192.0.2.8', "'infinity'", "now(), 'Bob'")
    await grant('192.0.2.9', "'infinity'", "now(), 'eve'")
    await database.owner.script(
      "INSERT INTO blocks (net, login, reason, owner) VALUES ('192.0.2.7', NULL, '', ''), (NULL, 'bob', '', '')",
    )
    expect(await addresses()).toEqual(['192.0.2.9'])
  })

  test('the query of a mail server uses the index', async () => {
    await database.owner.script(
      "INSERT INTO grants (ip, until, daemon) SELECT '10.0.0.0'::inet + n, 'infinity', 'x' FROM generate_series(1, 20000) n; ANALYZE grants",
    )
    const plan = await database.owner.query({
      row: v.object({ 'QUERY PLAN': v.string() }),
      text: "EXPLAIN SELECT 'OK' FROM relay_clients WHERE address = '10.0.0.77'",
    })
    expect(plan.rows.map(row => row['QUERY PLAN']).join('\n')).toContain('grants_address')
  })
})

describe('the histories', () => {
  const noon = (day: string): Date => new Date(`${day}T12:00:00Z`)
  const PARTITIONS: Statement<{ name: string }> = {
    row: v.object({ name: v.string() }),
    text: "SELECT relname AS name FROM pg_inherits JOIN pg_class ON oid = inhrelid WHERE inhparent = 'login_event'::regclass ORDER BY 1",
  }
  const partitions = async (): Promise<readonly string[]> =>
    (await database.owner.query(PARTITIONS)).rows.map(({ name }) => name.replace('login_event_', ''))
  const EVENTS: Statement<{ part: string; at: Date; username: string | null; refused: string | null }> = {
    row: v.object({
      part: v.string(),
      at: timestamptz,
      username: v.nullable(v.string()),
      refused: v.nullable(v.string()),
    }),
    text: 'SELECT tableoid::regclass::text AS part, at, username, refused FROM login_event ORDER BY at, username',
  }
  const COUNT_USES: Statement<{ uses: number }> = {
    row: v.object({ uses: int8 }),
    text: 'SELECT count(*) AS uses FROM usage_event',
  }
  const writerAt = (now: Date | null) => createGrantWriter(writer, grantPolicy(), { now: () => now })
  const event = (user: string, ip = '192.0.2.7') =>
    ({ id: 'a.1', ip: toAddress(ip), daemon: 'popup', tls: true, method: 'pass', user }) as const

  test('every login is kept, also coalesced and refused logins', async () => {
    const now = noon('2031-05-05')
    const outcome = await writerAt(now).record([
      { event: event('ann'), at: null },
      { event: event('bob'), at: null },
      { event: event('eve', '127.0.0.1'), at: null },
    ])
    expect(outcome.map(({ kind: verdict }) => verdict)).toEqual(['granted', 'granted', 'refused'])
    expect((await database.owner.query(EVENTS)).rows).toMatchObject([
      { username: 'ann', refused: null },
      { username: 'bob', refused: null },
      { username: 'eve', refused: 'loopback' },
    ])
  })

  test('a day without a partition loses no row, and its rows are moved to its partition later', async () => {
    const day = noon('2031-06-10')
    await writerAt(day).record([{ event: event('ann'), at: null }])
    expect((await database.owner.query(EVENTS)).rows).toMatchObject([{ part: 'login_event_default', at: day }])
    await writerAt(day).keepHistory(30)
    expect((await database.owner.query(EVENTS)).rows).toMatchObject([{ part: 'login_event_20310610', at: day }])
    expect(await partitions()).toEqual(
      expect.arrayContaining(['20310609', '20310610', '20310611', '20310612', '20310613']),
    )
  })

  test('days beyond the retention are dropped, and no newer day', async () => {
    await writerAt(noon('2031-07-01')).keepHistory(30)
    await writerAt(noon('2031-07-01')).record([{ event: event('old'), at: null }])
    await writerAt(noon('2031-07-10')).keepHistory(30)
    await writerAt(noon('2031-07-10')).record([{ event: event('young'), at: null }])
    await writerAt(noon('2031-07-31')).keepHistory(30)
    expect((await database.owner.query(EVENTS)).rows.map(({ username }) => username)).toEqual(['old', 'young'])
    await writerAt(noon('2031-08-01')).keepHistory(30)
    expect((await database.owner.query(EVENTS)).rows.map(({ username }) => username)).toEqual(['young'])
    expect(await partitions()).not.toContain('20310701')
    expect(await partitions()).toContain('20310709')
  })

  test('an ended allowance stays in the history until its end is older than the retention', async () => {
    const days = { begin: '2031-01-01', end: '2031-07-01', last: '2031-07-31', after: '2031-08-02' }
    await database.owner.script(
      `INSERT INTO allowances (net, since, until, ended, reason, owner)
       VALUES ('203.0.113.77', '${days.begin}', '${days.begin}', '${days.end}', '', '')`,
    )
    const kept = async (): Promise<unknown> =>
      (
        await database.owner.query({
          row: v.object({ kept: v.boolean() }),
          text: "SELECT EXISTS (SELECT FROM allowances WHERE net = '203.0.113.77') AS kept",
        })
      ).rows[0]?.kept
    await writerAt(noon(days.last)).keepHistory(30)
    expect(await kept()).toBe(true)
    await writerAt(noon(days.after)).keepHistory(30)
    expect(await kept()).toBe(false)
  })

  test('twenty programs do the housekeeping at once', async () => {
    await Promise.all(Array.from({ length: 20 }, () => writerAt(noon('2031-09-09')).keepHistory(30)))
    expect(await partitions()).toContain('20310909')
  })

  test('uses of the relay', async () => {
    await writerAt(null).recordUsageEvents([
      { ip: toAddress('192.0.2.7'), service: 'wrap', at: null },
      { ip: toAddress('2001:db8::1'), service: 'policy', at: noon('2026-01-01') },
    ])
    await writerAt(null).recordUsageEvents([])
    expect((await database.owner.query(COUNT_USES)).rows).toEqual([{ uses: 2 }])
  })

  test('the report counts a use in the second of its login, which the gate reports without a fraction', async () => {
    const second = Math.floor(Date.now() / 1000) - 60
    const at = (fraction: number): Date => new Date((second + fraction) * 1000)
    await writerAt(at(0.9)).record([{ event: event('ann'), at: null }])
    await writerAt(at(0.9)).record([{ event: event('bob', '2001:db8::7'), at: null }])
    // One second earlier, no login had opened the relay.
    await writerAt(null).recordUsageEvents([
      { ip: toAddress('192.0.2.7'), service: 'gate', at: at(0) },
      { ip: toAddress('2001:db8::7'), service: 'gate', at: at(-1) },
    ])
    const relays = (await reportUsage(writer, 1)).map(row => [row.login, row.relays, row.lastRelay])
    expect(relays).toEqual([
      ['ann', 1, at(0)],
      ['bob', 0, null],
    ])
  })

  test('the host that received a login, and the host whose gate relayed a message', async () => {
    const ago = (seconds: number): Date => new Date(Date.now() - seconds * 1000)
    const on = (host: string, now: Date) => createGrantWriter(writer, grantPolicy(), { now: () => now, host })
    const client = toAddress('192.0.2.7')
    const admin = createGrantAdmin(writer, grantPolicy())
    const [first, second, firstMail, secondMail] = [ago(300), ago(120), ago(200), ago(60)]
    await on('pop1', first).record([{ event: event('ann'), at: null }])
    await on('pop2', second).record([
      { event: event('ann'), at: null },
      { event: event('eve', '127.0.0.1'), at: null },
    ])
    await on('smtp1', firstMail).recordUsageEvents([{ ip: client, service: 'policy', at: firstMail }])
    await on('smtp2', secondMail).recordUsageEvents([{ ip: client, service: 'gate', at: secondMail }])

    expect((await admin.list()).map(({ host }) => host)).toEqual(['pop2'])
    const now = await admin.explain(client, null)
    expect(now.decided).toMatchObject({ rule: 'grant', daemon: 'popup', login: 'ann', host: 'pop2' })
    expect(now.lastRelay).toEqual({ at: secondMail, service: 'gate', host: 'smtp2' })
    const before = await admin.explain(client, ago(150))
    expect(before.decided).toMatchObject({
      rule: 'login',
      daemon: 'popup',
      method: 'pass',
      login: 'ann',
      session: 'a.1',
      host: 'pop1',
    })
    expect(before.lastRelay).toEqual({ at: firstMail, service: 'policy', host: 'smtp1' })
    expect(await admin.explain(toAddress('192.0.2.8'), null)).toMatchObject({ relay: false, lastRelay: null })
    const seen = [...(await loginsSince(writer, ago(600))), ...(await relaysSince(writer, ago(600)))]
    expect(seen.map(({ kind, host }) => `${kind} ${host}`).sort()).toEqual([
      'grant pop1',
      'grant pop2',
      'refused pop2',
      'relay smtp1',
      'relay smtp2',
    ])
    const received = await createStatusFeed(database.open('authstatus')).lastByDaemon(3600, 10)
    expect(received).toEqual([
      { daemon: 'gate', host: 'smtp2', at: secondMail },
      { daemon: 'policy', host: 'smtp1', at: firstMail },
      { daemon: 'popup', host: 'pop1', at: first },
      { daemon: 'popup', host: 'pop2', at: second },
    ])

    // Rows of an older release have no host.
    await database.owner.script('UPDATE login_event SET host = NULL; UPDATE usage_event SET host = NULL')
    expect((await admin.list()).map(({ host }) => host)).toEqual([null])
    expect(await admin.explain(client, null)).toMatchObject({
      decided: { daemon: 'popup', login: 'ann', host: null },
      lastRelay: { host: null },
    })
  })

  test('authd of schema 17 still stores logins and uses in a newer database', async () => {
    await database.owner.script(
      `SET ROLE pop3authd;
       INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until, refused)
         VALUES (now(), '192.0.2.7', '192.0.2.7', 'popup', 'pass', true, 'ann', 'a.1', now(), NULL);
       INSERT INTO relay_use (at, ip, door) VALUES (now(), '192.0.2.7', 'gate');
       RESET ROLE`,
    )
    expect((await database.owner.query(EVENTS)).rows).toMatchObject([{ username: 'ann' }])
    expect((await database.owner.query(COUNT_USES)).rows).toEqual([{ uses: 1 }])
  })

  describe('decisions of the gate', () => {
    const tally = (
      at: Date,
      counts: Partial<RelayTally['counts']>,
      recent: readonly string[] = [],
      service = 'gate',
    ) => ({
      at: at.getTime() / 1000,
      service,
      counts: { relayed: 0, refused: 0, undecided: 0, never: 0, ...counts },
      recent: recent.map(toAddress),
    })
    const since = new Date(0)

    test('are added up by minute and service, in one row each', async () => {
      const noonish = noon('2021-01-02')
      const later = (seconds: number): Date => new Date(noonish.getTime() + seconds * 1000)
      await writerAt(null).recordTallies([
        tally(noonish, { refused: 100, relayed: 1 }),
        tally(later(59), { refused: 20, undecided: 2 }),
        tally(later(59), { never: 5 }, [], 'policy'),
        tally(later(60), { refused: 1 }),
      ])
      await writerAt(null).recordTallies([tally(later(30), { refused: 3 })])
      await writerAt(null).recordTallies([])
      expect(await talliesSince(writer, since)).toEqual([
        { at: noonish, host: hostname(), service: 'gate', relayed: 1, refused: 123, undecided: 2, never: 0 },
        { at: noonish, host: hostname(), service: 'policy', relayed: 0, refused: 0, undecided: 0, never: 5 },
        { at: later(60), host: hostname(), service: 'gate', relayed: 0, refused: 1, undecided: 0, never: 0 },
      ])
    })

    test('the newest sample of the refused addresses of each service is there, and no other', async () => {
      const now = new Date()
      await writerAt(null).recordTallies([
        tally(now, { refused: 1 }, ['192.0.2.1']),
        tally(now, { refused: 2 }, ['192.0.2.2', '2001:db8::2']),
        tally(now, { refused: 1 }, ['192.0.2.3'], 'policy'),
      ])
      await writerAt(null).recordTallies([tally(now, { refused: 1 }, ['192.0.2.4'], 'policy')])
      const shown = await refusedSince(writer, since)
      expect(shown.map(({ kind, ip, detail }) => `${kind} ${ip} ${detail}`).sort()).toEqual([
        'closed 192.0.2.2 gate',
        'closed 192.0.2.4 policy',
        'closed 2001:db8::2 gate',
      ])
      expect(await refusedSince(writer, new Date(Date.now() + 60_000))).toEqual([])
    })

    test('a clock that is ahead counts as now; two gates at once lose nothing', async () => {
      const ahead = new Date(Date.now() + 3_600_000)
      await Promise.all(
        Array.from({ length: 20 }, () => writerAt(null).recordTallies([tally(ahead, { refused: 5, undecided: 1 })])),
      )
      const status = createStatusFeed(database.open('authstatus'))
      expect(await status.services(3600)).toEqual([{ service: 'gate', relayed: 0, closed: 120, undecided: 20 }])
      const counts = await status.countEvents(new Date(Date.now() - 3_600_000), new Date(Date.now() + 60_000), 86_400)
      expect(counts.reduce((sum, { closed }) => sum + closed, 0)).toBe(120)
    })

    test('relayed mail and refusals of a service are shown together', async () => {
      await writerAt(null).recordUsageEvents([{ ip: toAddress('192.0.2.7'), service: 'gate', at: null }])
      await writerAt(null).recordTallies([tally(new Date(), { relayed: 1, refused: 8, never: 1 })])
      const status = createStatusFeed(database.open('authstatus'))
      expect(await status.services(3600)).toEqual([{ service: 'gate', relayed: 1, closed: 9, undecided: 0 }])
    })

    test('are kept as long as the histories', async () => {
      await writerAt(null).recordTallies([
        tally(noon('2021-01-02'), { refused: 1 }),
        tally(noon('2021-01-03'), { refused: 2 }),
      ])
      await writerAt(noon('2021-02-02')).keepHistory(30)
      expect((await talliesSince(writer, since)).map(({ refused }) => refused)).toEqual([2])
    })
  })
})
