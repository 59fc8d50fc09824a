import { describe, expect, test } from 'vitest'
import { chart, html, niceMaximum, page } from '../../../src/auth-relay/status-page/page.ts'
import { isLoopbackHost } from '../../../src/auth-relay/status-page/status-server.ts'
import { EventHistory, STEP_S, STEPS, StatusSource } from '../../../src/auth-relay/status-page/status-source.ts'
import type { EventCounts, StatusFeed, Totals } from '../../../src/grants/status-feed.ts'
import { net } from '../../harness/addresses.ts'

const now = new Date('2026-11-26T12:04:00Z')
const totals: Totals = { now, grants: 1, allowances: 0, blocks: 0, schema: 5 }
const context = { host: 'mx.example.org', version: '1', expTime: 1800 }

describe('markup', () => {
  test('texts are always escaped, markup is not, and a missing value is empty', () => {
    const name = `<b a='1' c="2">&\``
    expect(html`<p title="${name}">${name}${html`<i>${1}</i>`}${[name, 2]}${undefined}${false}</p>`.text).toBe(
      `<p title="${escaped}">${escaped}<i>1</i>${escaped}2</p>`,
    )
  })
  const escaped = '&#60;b a=&#39;1&#39; c=&#34;2&#34;&#62;&#38;&#96;'
})

describe('names of hosts that the page accepts', () => {
  test.each(['localhost', 'LOCALHOST:8110', '127.0.0.1', '127.0.0.1:1', '127.8.8.8:80', '[::1]', '[::1]:8110'])(
    '%s is this host',
    host => expect(isLoopbackHost(host)).toBe(true),
  )
  test.each([
    undefined,
    '',
    'localhost.example.org',
    'example.org:8110',
    '192.0.2.7',
    '[2001:db8::1]:80',
    '127.0.0.1.example.org',
    '127.0.0.1:80:80',
    '0x7f000001',
    'a@127.0.0.1',
    '[::1',
  ])('%s is not this host', host => expect(isLoopbackHost(host)).toBe(false))
})

describe('the chart', () => {
  test.each([
    [0, 4],
    [4, 4],
    [5, 6],
    [11, 20],
    [99, 100],
    [101, 200],
    [650, 800],
    [12_345, 20_000],
  ])('the scale for %d ends at %d', (greatest, maximum) => expect(niceMaximum(greatest)).toBe(maximum))

  test('a bar is as high as its number, and one login can be seen beside thousands', () => {
    const quiet = { start: now, granted: 0, refused: 0, relayed: 0, closed: 0 }
    const text = chart([
      { ...quiet, granted: 10_000 },
      { ...quiet, granted: 1 },
      { ...quiet, refused: 5000, relayed: 1, closed: 80_000 },
      quiet,
    ]).text
    expect([...text.matchAll(/<rect class="granted"[^>]* height="([\d.]+)"/g)].map(([, height]) => height)).toEqual([
      '110',
      '2',
    ])
    expect([...text.matchAll(/<rect class="refused"[^>]* height="([\d.]+)"/g)].map(([, height]) => height)).toEqual([
      '20',
    ])
    // Refused clients have a separate scale: with any number of them, one mail is a quarter of its
    // strip.
    expect(text).toMatch(/<rect class="relayed"[^>]* height="13.5"/)
    expect(text).toMatch(/<rect class="closed"[^>]* height="36"/)
    expect(text).toContain('1 connection was let through by the gate, 80000 not.')
  })
})

describe('the history behind the chart', () => {
  /** A database with these counts, which records the queries. */
  function feed(counts: readonly EventCounts[]) {
    const queried: [number, number][] = []
    return {
      queried: queried,
      async countEvents(from: Date, to: Date) {
        queried.push([(from.getTime() - now.getTime()) / 1000, (to.getTime() - now.getTime()) / 1000])
        return counts.filter(({ start }) => start >= from && start < to)
      },
    }
  }
  const at = (steps: number): Date =>
    new Date(Math.floor(now.getTime() / STEP_S / 1000) * STEP_S * 1000 - steps * STEP_S * 1000)
  const old = { start: at(70), granted: 3, refused: 0, relayed: 0, closed: 0 }
  const young = { start: at(0), granted: 1, refused: 1, relayed: 1, closed: 1 }

  test('past data is read once, in pieces, the newest first; later queries read only recent data', async () => {
    const database = feed([old, young])
    const history = new EventHistory(database)
    await history.readAll(now)
    expect(database.queried[0]).toEqual([-3240, 360])
    expect(database.queried).toHaveLength(STEPS / 6)
    expect(history.steps(now)[1]).toEqual(old)
    expect(history.steps(now).at(-1)).toEqual(young)
    expect(history.steps(now)).toHaveLength(STEPS)
    database.queried.length = 0
    await history.readLast(now)
    expect(database.queried).toEqual([[-1440, 360]])
    expect(history.steps(now)[1]).toEqual(old)
  })

  test('entries beyond the limit leave the chart', async () => {
    const history = new EventHistory(feed([old]))
    await history.readAll(now)
    const later = new Date(now.getTime() + 2 * STEP_S * 1000)
    await history.readLast(later)
    expect(history.steps(later).every(({ granted }) => granted === 0)).toBe(true)
  })
})

describe('the data of the page', () => {
  /** A site with one grant; `fail` makes its database unavailable. */
  function site() {
    const state = { queries: 0, time: now.getTime(), fail: false, slow: 0 }
    const feed: StatusFeed = {
      async totals() {
        state.queries += 1
        state.time += state.slow
        if (state.fail) throw new Error('no server <answers>')
        return { ...totals, now: new Date(state.time) }
      },
      liveGrants: async () => [
        {
          network: net('192.0.2.7'),
          until: new Date(state.time + 900_000),
          last: now,
          logins: 3,
          daemon: 'popup',
          login: '<script>alert(1)</script>\u202e',
          tls: true,
        },
      ],
      lastEvents: async () => [],
      lastByDaemon: async () => [],
      countEvents: async () => [],
      services: async () => [{ service: 'gate', relayed: 1, closed: 90, undecided: 2 }],
      alarms: async () => [{ rule: 'login_spread', subject: '<ann>', detail: '37 addresses', since: now }],
      devices: async () => [{ name: 'copier-2', logins: ['copier2@example.org'], lastLogin: now, until: null }],
    }
    const source = new StatusSource({
      feed,
      databaseState: () => ({ state: 'up', host: 'db:5432', pooled: false, synchronousCommit: 'on' }),
      probeCertificates: async () => [],
      clock: () => state.time,
    })
    return { state, source }
  }

  test('with any number of viewers the database is queried once in two seconds', async () => {
    const { state, source } = site()
    await Promise.all(Array.from({ length: 50 }, () => source.snapshot()))
    expect(state.queries).toBe(1)
    state.time += 2000
    await source.snapshot()
    expect(state.queries).toBe(2)
  })

  test('a clock that is set back does not stop the page', async () => {
    const { state, source } = site()
    await source.snapshot()
    state.time -= 3_600_000
    await Promise.all([source.snapshot(), source.snapshot()])
    expect(state.queries).toBe(2)
    state.time += 1999
    await source.snapshot()
    expect(state.queries).toBe(2)
  })

  test('a database that takes a second is queried every ten seconds', async () => {
    const { state, source } = site()
    state.slow = 1000
    await source.snapshot()
    state.time += 8999
    await source.snapshot()
    expect(state.queries).toBe(1)
    state.time += 1
    await source.snapshot()
    expect(state.queries).toBe(2)
  })

  test('a login name stays text, and can neither move nor reverse the text beside it', async () => {
    const text = page(await site().source.snapshot(), context)
    expect(text).toContain('&#60;script&#62;alert(1)&#60;/script&#62;\\u{202e}')
    expect(text.match(/<script/g)).toHaveLength(1)
  })

  test('a service shows the number of refused connections, and of those without an answer of the database', async () => {
    expect(page(await site().source.snapshot(), context)).toContain(
      '<dt>service gate</dt><dd>1 connection let through, 90 not <span class="badge bad">2 without an answer of the database</span></dd>',
    )
  })

  test('active alarms come first, and each device has the time of its last login', async () => {
    const text = page(await site().source.snapshot(), context)
    expect(text).toContain('<p>login_spread: &#60;ann&#62;</p><p class="what">37 addresses, since ')
    expect(text).toContain('<dt>copier-2</dt><dd>copier2@example.org: last login 2026-11-26 12:04')
  })

  test('if the database does not answer, the page keeps the last figures and shows their time', async () => {
    const { state, source } = site()
    await source.snapshot()
    state.fail = true
    state.time += 60_000
    const text = page(await source.snapshot(), context)
    expect(text).toContain('The database does not answer: the relay stays closed')
    expect(text).toContain('no server &#60;answers&#62;. The figures are those of ')
    expect(text).toContain('192.0.2.7')
  })

  test('if the database has never answered, the page is served and reports the fault', async () => {
    const { state, source } = site()
    state.fail = true
    const text = page(await source.snapshot(), context)
    expect(text).toContain('<title>no data &ndash;')
    expect(text).toContain('The database has not answered yet.')
  })
})
