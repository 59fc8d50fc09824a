import * as v from 'valibot'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { type Database, openDatabase } from '../../src/database/database.ts'
import { migrate } from '../../src/database/migrate.ts'
import { ignored, type Statement, type Value } from '../../src/database/statement.ts'
import { createGrantAdmin } from '../../src/grants/grant-admin.ts'
import type { GrantPolicyOptions } from '../../src/grants/grant-policy.ts'
import { createGrantReader } from '../../src/grants/grant-reader.ts'
import type { GrantOutcome } from '../../src/grants/grant-store.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { CustomerNetworks } from '../../src/wire/customer-networks.ts'
import { type IpAddress, NetworkSet } from '../../src/wire/ip-address.ts'
import type { LoginEvent } from '../../src/wire/login-event.ts'
import { ip, net } from '../harness/addresses.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { DEBIAN_POSTGRES, PostgresCluster } from '../harness/postgres/postgres-cluster.ts'
import { createTestDatabase } from '../harness/postgres/test-database.ts'
import { describeWith } from '../harness/runner/describe-with.ts'

const EPOCH = Date.UTC(2026, 0, 1, 12)
/** Seconds after noon on the day of the test. */
const at = (seconds: number): Date => new Date(EPOCH + seconds * 1000)
const A = ip('192.0.2.7')
const B = ip('192.0.2.8')

const login = (address: IpAddress, more: Partial<LoginEvent> = {}): LoginEvent => ({
  id: '7f3a.12',
  ip: address,
  daemon: 'popup',
  tls: true,
  method: 'pass',
  user: 'ann@example.org',
  ...more,
})

/** The store of three programs, each with its role, and a clock that the test sets. */
function storeOn(databases: { writer: Database; reader: Database }) {
  return (options: Partial<GrantPolicyOptions> = {}) => {
    const policy = grantPolicy(options)
    const clock = { now: at(0) }
    const now = () => clock.now
    return {
      clock,
      writer: createGrantWriter(databases.writer, policy, { now }),
      /** The store of a host whose clock is ahead by that number of seconds. */
      writerAhead: (seconds: number) =>
        createGrantWriter(databases.writer, policy, { now, clock: () => clock.now.getTime() + seconds * 1000 }),
      reader: createGrantReader(databases.reader, policy, { now }),
      admin: createGrantAdmin(databases.writer, policy, { now }),
    }
  }
}
type Store = ReturnType<ReturnType<typeof storeOn>>

const VIEWED: Statement<{ ip: string }> = {
  text: 'SELECT host(network) AS ip FROM relay_clients ORDER BY 1',
  row: v.object({ ip: v.string() }),
}

const granted = (seconds: number): GrantOutcome => ({ kind: 'granted', until: at(seconds).getTime() / 1000 })
const forEver = { forSeconds: null, reason: 'tests', owner: 'root' }

function suite(open: () => { owner: Database; writer: Database; reader: Database }): void {
  let make: ReturnType<typeof storeOn>
  let store: Store
  let owner: Database
  /** The database with the role of authd. */
  let database: Database
  beforeAll(() => {
    const databases = open()
    owner = databases.owner
    database = databases.writer
    make = storeOn(databases)
  })
  beforeEach(async () => {
    await owner.script('TRUNCATE grants, blocks, allowances, login_event, usage_event')
    store = make()
  })
  const record = async (on: Store, ...events: LoginEvent[]) =>
    on.writer.record(events.map(event => ({ event, at: null })))
  const mayRelay = async (on: Store, seconds: number, address = A): Promise<boolean> => {
    on.clock.now = at(seconds)
    return (await on.reader.lookup(address)) !== undefined
  }

  describe('a grant', () => {
    test('begins with the login, for that address and no other address', async () => {
      expect(await mayRelay(store, 0)).toBe(false)
      expect(await record(store, login(A))).toEqual([granted(1800)])
      store.clock.now = at(10)
      expect(await store.reader.lookup(A)).toMatchObject({ ip: A, source: 'login', until: at(1800), age: 10 })
      expect(await mayRelay(store, 10, B)).toBe(false)
    })

    test('ends exactly: valid a thousandth of a second before the end, invalid at the end', async () => {
      await record(store, login(A))
      expect(await mayRelay(store, 1799.999)).toBe(true)
      expect(await mayRelay(store, 1800)).toBe(false)
    })

    test('is extended by a new login', async () => {
      await record(store, login(A))
      store.clock.now = at(1000)
      expect(await record(store, login(A))).toEqual([granted(2800)])
      expect(await mayRelay(store, 2799)).toBe(true)
      expect(await mayRelay(store, 2800)).toBe(false)
    })

    test('is not shortened by an event that arrives late', async () => {
      store.clock.now = at(1000)
      await record(store, login(A))
      expect(await store.writer.record([{ event: login(A, { user: 'old' }), at: at(400) }])).toEqual([granted(2800)])
      expect(await store.admin.list()).toMatchObject([
        { user: 'ann@example.org', last: at(1000), first: at(400), logins: 2 },
      ])
    })

    test('of a delayed event counts from the time of the event', async () => {
      store.clock.now = at(1000)
      expect(await store.writer.record([{ event: login(A), at: at(400) }])).toEqual([granted(2200)])
      expect(await mayRelay(store, 2199)).toBe(true)
      expect(await mayRelay(store, 2200)).toBe(false)
    })

    test.each([300, -300])('of a login that was delayed on a host whose clock is %i s ahead', async ahead => {
      store.clock.now = at(1000)
      // Ten minutes ago.
      const login1 = { event: login(A), at: at(400 + ahead) }
      expect(await store.writerAhead(ahead).record([login1])).toEqual([granted(2200)])
    })

    test('of an event from the future counts from now', async () => {
      expect(await store.writer.record([{ event: login(A), at: at(5000) }])).toEqual([granted(1800)])
    })

    test('is the same for 192.0.2.7 and ::ffff:192.0.2.7', async () => {
      await record(store, login(ip('::ffff:192.0.2.7')))
      expect(await mayRelay(store, 1)).toBe(true)
      expect(await mayRelay(store, 1, ip('::ffff:c000:207'))).toBe(true)
    })

    test('of a hostile login name is an ordinary grant', async () => {
      const user = `'; DROP TABLE grants; --"\\{}, NULL 𝕏`
      await record(store, login(A, { user }), login(B, { user: 'NULL' }))
      expect((await store.admin.list()).map(row => row.user).sort()).toEqual([user, 'NULL'].sort())
    })

    test('is stored without a name if store_user is off, and blocks of logins still apply', async () => {
      const nameless = make({ storeUser: false })
      await nameless.admin.block({ kind: 'login', login: 'Bad' }, forEver)
      expect(await record(nameless, login(A), login(B, { user: 'bad' }))).toEqual([
        granted(1800),
        { kind: 'refused', reason: 'blocked' },
      ])
      expect(await nameless.admin.list()).toMatchObject([{ user: null }])
    })
  })

  describe('max_lifetime', () => {
    test('ends a grant that is refreshed all the time; the next login begins a new grant', async () => {
      const limited = make({ maxLifetime: 3000 })
      expect(await record(limited, login(A))).toEqual([granted(1800)])
      limited.clock.now = at(1500)
      expect(await record(limited, login(A))).toEqual([granted(3000)])
      limited.clock.now = at(2900)
      expect(await record(limited, login(A))).toEqual([granted(3000)])
      expect(await mayRelay(limited, 3000)).toBe(false)
      limited.clock.now = at(3001)
      expect(await record(limited, login(A))).toEqual([granted(4801)])
    })
  })

  describe('a batch', () => {
    test('answers every login in order, and merges the logins of one address', async () => {
      const outcomes = await record(store, login(A), login(ip('127.0.0.1')), login(B), login(A, { user: 'bob' }))
      expect(outcomes).toEqual([granted(1800), { kind: 'refused', reason: 'loopback' }, granted(1800), granted(1800)])
      const rows = await store.admin.list()
      expect(rows.map(row => [row.network.base, row.user, row.logins])).toEqual([
        [A, 'bob', 2],
        [B, 'ann@example.org', 1],
      ])
    })

    test('accepts an empty batch', async () => {
      expect(await store.writer.record([])).toEqual([])
    })

    test('of two writers that run at once in opposite orders does not deadlock', async () => {
      const many = Array.from({ length: 200 }, (_, n) => login(ip(`198.51.100.${n}`), { user: `u${n}` }))
      const rounds = Array.from({ length: 20 }, (_, n) => record(store, ...(n % 2 === 0 ? many : many.toReversed())))
      for (const outcomes of await Promise.all(rounds))
        expect(outcomes.every(({ kind: verdict }) => verdict === 'granted')).toBe(true)
    })
  })

  describe('coalescing', () => {
    test('a login within five seconds of the last writes no row, and its answer is the stored end', async () => {
      await record(store, login(A))
      store.clock.now = at(4.9)
      expect(await record(store, login(A))).toEqual([granted(1800)])
      expect(await store.admin.list()).toMatchObject([{ logins: 1 }])
      store.clock.now = at(5)
      expect(await record(store, login(A))).toEqual([granted(1805)])
    })

    test('a login with another name from the same address writes a row', async () => {
      await record(store, login(A))
      store.clock.now = at(1)
      expect(await record(store, login(A, { user: 'bob' }))).toEqual([granted(1801)])
      expect(await store.admin.list()).toMatchObject([{ user: 'bob', logins: 2 }])
    })

    test('short grants are hardly coalesced', async () => {
      const short = make({ expTime: 10 })
      await record(short, login(A))
      short.clock.now = at(1)
      expect(await record(short, login(A))).toEqual([granted(11)])
    })
  })

  describe('never granted', () => {
    test.each([
      ['127.0.0.1', 'loopback'],
      ['::1', 'loopback'],
      ['::ffff:127.0.0.1', 'loopback'],
      ['0.1.2.3', 'never'],
      ['169.254.9.9', 'never'],
      ['224.0.0.1', 'never'],
      ['255.255.255.255', 'never'],
      ['::', 'never'],
      ['fe80::1', 'never'],
      ['ff02::1', 'never'],
      ['203.0.113.9', 'never'],
      ['203.0.113.200', 'own'],
      ['198.51.100.5', 'proxy'],
      ['64:ff9b::198.51.100.5', 'proxy'],
      ['::ffff:198.51.100.5', 'proxy'],
      ['10.1.2.3', 'private'],
      ['100.64.0.1', 'private'],
      ['fd00::1', 'private'],
    ])('%s: %s', async (text, reason) => {
      const strict = make({
        denyPrivate: true,
        neverGrant: new NetworkSet([net('203.0.113.0/25')]),
        ownAddresses: () => new Set([ip('203.0.113.200')]),
        trusted: { 'popup.proxy_trust': new NetworkSet([net('198.51.100.4/30')]) },
      })
      expect(await record(strict, login(ip(text)))).toEqual([{ kind: 'refused', reason }])
      // The lookup refuses the address even if there is a row, because another program may have
      // fewer rules.
      await owner.query(
        {
          row: ignored,
          text: "INSERT INTO grants (ip, until, last_auth, daemon) VALUES ($1, 'infinity', $2, 'x')",
        },
        [ip(text), at(0)],
      )
      expect(await mayRelay(strict, 1, ip(text))).toBe(false)
    })

    test('private addresses can have a grant unless the settings deny it, and the administrator may still allow one', async () => {
      expect(await record(store, login(ip('10.1.2.3')))).toEqual([granted(1800)])
      const strict = make({ denyPrivate: true })
      expect(await mayRelay(strict, 1, ip('10.1.2.3'))).toBe(false)
      await strict.admin.allow(net('10.1.2.0/24'), forEver)
      expect(await mayRelay(strict, 1, ip('10.1.2.3'))).toBe(true)
    })

    test('loopback can have a grant with grant_loopback, for the demo', async () => {
      const demo = make({ grantLoopback: true })
      expect(await record(demo, login(ip('127.0.0.1')))).toEqual([granted(1800)])
      expect(await mayRelay(demo, 1, ip('127.0.0.1'))).toBe(true)
    })

    test('a network that contains a proxy is allowed without the proxy, and is listed in parts', async () => {
      const behind = make({
        trusted: { 'wrap.proxy_trust': new NetworkSet([net('203.0.113.9')]) },
        ownAddresses: () => new Set([ip('2001:db8:1::5')]),
      })
      expect(await behind.admin.allow(net('203.0.113.8/30'), forEver)).toEqual({
        until: null,
        exceptions: [net('203.0.113.9')],
      })
      expect(await mayRelay(behind, 1, ip('203.0.113.8'))).toBe(true)
      expect(await mayRelay(behind, 1, ip('203.0.113.9'))).toBe(false)
      await behind.admin.allow(net('2001:db8:1::4/127'), forEver)
      // A prefix cannot separate the addresses in these networks that can have a grant. Each
      // address is looked up alone.
      await behind.admin.allow(net('64:ff9b::203.0.113.8/126'), forEver)
      await behind.admin.allow(net('64:ff9b::203.0.113.1'), forEver)
      expect(await mayRelay(behind, 1, ip('64:ff9b::203.0.113.10'))).toBe(true)
      expect(await mayRelay(behind, 1, ip('64:ff9b::203.0.113.9'))).toBe(false)
      const listed = (await behind.reader.current()).map(({ network }) => network)
      expect(new Set(listed)).toEqual(
        new Set(['203.0.113.8', '203.0.113.10/31', '2001:db8:1::4', '64:ff9b::203.0.113.1'].map(net)),
      )
    })

    test('a new address of the host is ungrantable at once', async () => {
      const own = new Set<IpAddress>()
      const host = make({ ownAddresses: () => own })
      await record(host, login(A))
      expect(await mayRelay(host, 1)).toBe(true)
      own.add(A)
      expect(await mayRelay(host, 1)).toBe(false)
      expect(await record(host, login(A))).toEqual([{ kind: 'refused', reason: 'own' }])
    })
  })

  describe('ipv6_prefix', () => {
    const home = ip('2001:db8:1:2::10')
    const privacy = ip('2001:db8:1:2:aaaa:bbbb:cccc:dddd')
    const neighbour = ip('2001:db8:1:3::10')

    test('128: the address alone', async () => {
      await record(store, login(home))
      expect(await mayRelay(store, 1, home)).toBe(true)
      expect(await mayRelay(store, 1, privacy)).toBe(false)
    })

    test('64: its network and no other; IPv4 is unchanged', async () => {
      const wide = make({ ipv6Prefix: 64 })
      await record(wide, login(home), login(A))
      expect(await mayRelay(wide, 1, privacy)).toBe(true)
      expect(await mayRelay(wide, 1, neighbour)).toBe(false)
      expect(await mayRelay(wide, 1, A)).toBe(true)
      expect(await mayRelay(wide, 1, B)).toBe(false)
      expect((await wide.admin.list()).map(row => row.network)).toContainEqual(net('2001:db8:1:2::/64'))
    })

    test('64 and a translator: one login opens the relay for one client alone', async () => {
      const wide = make({ ipv6Prefix: 64, customers: new CustomerNetworks([net('2001:db8:64::/96')]) })
      for (const prefix of ['64:ff9b::', '2001:db8:64::', '::ffff:0:']) {
        const client = ip(`${prefix}198.51.100.7`)
        expect(await record(wide, login(client))).toEqual([granted(1800)])
        expect(await mayRelay(wide, 0, client)).toBe(true)
        for (const other of [`${prefix}8.8.8.8`, `${prefix}198.51.100.8`, '198.51.100.7']) {
          expect(await mayRelay(wide, 0, ip(other)), other).toBe(false)
        }
      }
      expect((await wide.admin.list()).map(row => row.network.prefixLength)).toEqual([128, 128, 128])
      const otherRows = await owner.query(
        { row: ignored, text: "SELECT FROM relay_clients WHERE network >>= inet '64:ff9b::808:808'" },
        [],
      )
      expect(otherRows.count).toBe(0)
    })

    test('64 and ::/64: the base address too', async () => {
      const wide = make({ ipv6Prefix: 64 })
      await record(wide, login(ip('2001:db8::')))
      expect(await mayRelay(wide, 1, ip('2001:db8::'))).toBe(true)
      expect(await mayRelay(wide, 1, ip('2001:db8::1'))).toBe(true)
    })
  })

  describe('blocks', () => {
    test('apply at once on a database whose clock is behind, as after a failover', async () => {
      store.clock.now = at(600)
      await record(store, login(A))
      await store.admin.block({ kind: 'network', network: net('192.0.2.0/24') }, forEver)
      await store.admin.allow(net('192.0.2.0/24'), forEver)
      store.clock.now = at(595)
      expect(await store.reader.lookup(A)).toBeUndefined()
      expect(await store.reader.current()).toEqual([])
      expect(await record(store, login(A))).toEqual([{ kind: 'refused', reason: 'blocked' }])
      expect(await store.admin.blocks()).toHaveLength(1)
      expect(await store.admin.explain(A, null)).toMatchObject({ relay: false, decided: { rule: 'block' } })
    })

    test('delete the grant at once, prevent new grants, and end', async () => {
      await record(store, login(A), login(B))
      const blocked = await store.admin.block(
        { kind: 'network', network: net('192.0.2.7') },
        { ...forEver, forSeconds: 3600 },
      )
      expect(blocked).toEqual({ removed: 1, until: at(3600) })
      expect(await mayRelay(store, 1)).toBe(false)
      expect(await mayRelay(store, 1, B)).toBe(true)
      expect(await record(store, login(A))).toEqual([{ kind: 'refused', reason: 'blocked' }])
      store.clock.now = at(3599.9)
      expect(await record(store, login(A))).toEqual([{ kind: 'refused', reason: 'blocked' }])
      store.clock.now = at(3600)
      expect(await record(store, login(A))).toEqual([granted(5400)])
    })

    test('of a network apply to every address in it, and to allowances', async () => {
      await store.admin.allow(net('198.51.100.0/24'), forEver)
      await store.admin.block({ kind: 'network', network: net('198.51.100.128/25') }, forEver)
      expect(await mayRelay(store, 1, ip('198.51.100.127'))).toBe(true)
      expect(await mayRelay(store, 1, ip('198.51.100.128'))).toBe(false)
    })

    test('of a login, in upper or lower case, from any address', async () => {
      await record(store, login(A, { user: 'Ann@Example.org' }))
      expect(await store.admin.block({ kind: 'login', login: 'ann@example.ORG' }, forEver)).toEqual({
        removed: 1,
        until: null,
      })
      expect(await record(store, login(B, { user: 'ANN@example.org' }))).toEqual([
        { kind: 'refused', reason: 'blocked' },
      ])
      expect(await record(store, login(B, { user: 'bob' }))).toEqual([granted(1800)])
    })

    test('of a login apply to its domain with the final dot, and fold only ASCII letters', async () => {
      await store.admin.block({ kind: 'login', login: 'Ann@Example.org.' }, forEver)
      expect(
        await record(store, login(B, { user: 'ann@example.ORG' }), login(A, { user: 'ann@example.org..' })),
      ).toEqual(Array(2).fill({ kind: 'refused', reason: 'blocked' }))
      // The dot of a name without a domain is part of the name.
      expect(await record(store, login(B, { user: 'ann.' }))).toEqual([granted(1800)])
      await store.admin.block({ kind: 'login', login: 'jürgen' }, forEver)
      const [ascii, umlaut] = await record(store, login(B, { user: 'JüRGEN' }), login(B, { user: 'JÜRGEN' }))
      expect(ascii).toEqual({ kind: 'refused', reason: 'blocked' })
      expect(umlaut).toEqual(granted(1800))
      expect(await store.admin.unblock({ kind: 'login', login: 'JüRGEN' })).toBe(1)
    })

    test('of an IPv4 address apply to the IPv6 addresses that embed it', async () => {
      const translated = make({ customers: new CustomerNetworks([net('2001:db8:64::/96')]) })
      const forms = [
        ...['64:ff9b::192.0.2.7', '::ffff:0:192.0.2.7', '::192.0.2.7', '2002:c000:207::1', '2001:db8:64::192.0.2.7'],
        '2001:0:4136:e378:8000:63bf:3fff:fdf8',
      ].map(ip)
      const others = ['64:ff9b::192.0.2.8', '2001:db8:64::192.0.2.8', '2001:db8::1'].map(ip)
      const open = async () => {
        const answers = await Promise.all([...forms, ...others].map(address => mayRelay(translated, 1, address)))
        return [...forms, ...others].filter((_, n) => answers[n])
      }
      const listed = async () => (await translated.reader.current()).map(({ network }) => network.base)
      const view = async () => (await owner.query(VIEWED)).rows.map(row => row.ip)
      await owner.script('TRUNCATE ungrantable')
      await record(translated, ...[...forms, ...others].map(address => login(address)))
      await translated.admin.allow(net('64:ff9b::192.0.2.7'), forEver)
      await owner.script("UPDATE grants SET until = 'infinity'")
      expect(await open()).toEqual([...forms, ...others])
      expect(new Set(await listed())).toEqual(new Set([...forms, ...others]))

      // Written without the administrator's command, so that the grants still exist.
      await owner.script(`INSERT INTO blocks (net, reason, owner, since) VALUES ('192.0.2.0/29', '', '', '2026-01-01')`)
      await owner.script(`DELETE FROM grants WHERE ip IN ('64:ff9b::192.0.2.8', '2001:db8:64::192.0.2.8')`)
      expect(await open()).toEqual([ip('2001:db8::1')])
      expect(await listed()).toEqual([ip('2001:db8::1')])
      expect(await view()).toEqual(['2001:db8::1'])
      expect(await record(translated, login(forms[0] ?? A))).toEqual([{ kind: 'refused', reason: 'blocked' }])
      expect(await translated.admin.explain(forms[0] ?? A, null)).toMatchObject({
        relay: false,
        decided: { rule: 'block', network: '192.0.2.0/29' },
      })
      await translated.admin.unblock({ kind: 'network', network: net('192.0.2.0/29') })

      // Written by the command, which deletes the grants of all forms.
      const target = { kind: 'network', network: net('192.0.2.7') } as const
      expect(await translated.admin.block(target, forEver)).toMatchObject({ removed: forms.length })
      // A block of one form applies to this form alone.
      await translated.admin.unblock(target)
      await record(translated, login(A), ...forms.map(address => login(address)))
      await translated.admin.block({ kind: 'network', network: net('64:ff9b::192.0.2.7') }, forEver)
      expect(await open()).toEqual([...forms.slice(1), ip('2001:db8::1')])
      expect(await mayRelay(translated, 1, A)).toBe(true)
    })

    test('of a login apply at lookup, even if its grant is written at the same time', async () => {
      await store.admin.block({ kind: 'login', login: 'ann@example.org' }, forEver)
      await owner.script(
        `INSERT INTO grants (ip, until, last_auth, daemon, username) VALUES ('192.0.2.7', 'infinity', '${at(0).toISOString()}', 'x', 'Ann@example.org')`,
      )
      expect(await mayRelay(store, 1)).toBe(false)
    })

    test('are ended by the administrator; the deleted grants do not come back', async () => {
      const target = { kind: 'network', network: net('192.0.2.0/24') } as const
      await record(store, login(A))
      await store.admin.block(target, forEver)
      expect(await store.admin.blocks()).toEqual([
        { target, since: at(0), until: null, reason: 'tests', owner: 'root' },
      ])
      store.clock.now = at(10)
      expect(await store.admin.unblock(target)).toBe(1)
      expect(await store.admin.unblock(target)).toBe(0)
      expect(await store.admin.blocks()).toEqual([])
      expect(await mayRelay(store, 10)).toBe(false)
      expect(await record(store, login(A))).toEqual([granted(1810)])
    })

    test('that are repeated: only the later one counts', async () => {
      const target = { kind: 'login', login: 'bob' } as const
      await store.admin.block(target, forEver)
      store.clock.now = at(5)
      await store.admin.block(target, { ...forEver, forSeconds: 10 })
      expect(await store.admin.blocks()).toMatchObject([{ since: at(5), until: at(15) }])
    })
  })

  describe('allowances', () => {
    test('let a network relay without a login until they end', async () => {
      expect(await store.admin.allow(net('198.51.100.0/24'), { ...forEver, forSeconds: 60 })).toEqual({
        until: at(60),
        exceptions: [],
      })
      store.clock.now = at(30)
      expect(await store.reader.lookup(ip('198.51.100.9'))).toMatchObject({
        source: 'allowance',
        until: at(60),
        age: 30,
      })
      expect(await mayRelay(store, 60, ip('198.51.100.9'))).toBe(false)
    })

    test('without an end are ended by the administrator', async () => {
      expect(await store.admin.allow(net('198.51.100.9'), forEver)).toEqual({ until: null, exceptions: [] })
      expect(await store.admin.allowances()).toMatchObject([
        { network: net('198.51.100.9'), until: null, owner: 'root' },
      ])
      expect(await mayRelay(store, 1e9, ip('198.51.100.9'))).toBe(true)
      expect(await store.admin.disallow(net('198.51.100.9'))).toBe(1)
      expect(await mayRelay(store, 1e9, ip('198.51.100.9'))).toBe(false)
    })

    test('that were ended stay ended if the clock of the database is set back, and the history keeps their end', async () => {
      const office = net('198.51.100.0/24')
      const client = ip('198.51.100.9')
      await store.admin.allow(office, forEver)
      store.clock.now = at(100)
      await store.admin.allow(office, { ...forEver, reason: 'replaces the first' })
      store.clock.now = at(200)
      expect(await store.admin.disallow(office)).toBe(1)
      for (const seconds of [0, 50, 100, 150, 199, 200, 300]) {
        expect(await mayRelay(store, seconds, client), `${seconds} s`).toBe(false)
        expect(await store.admin.allowances()).toEqual([])
        expect(await store.admin.explain(client, null)).toMatchObject({
          relay: false,
          decided: { rule: 'never-seen' },
        })
        expect(await store.admin.disallow(office)).toBe(0)
      }
      store.clock.now = at(300)
      expect(await store.admin.explain(client, at(50))).toMatchObject({ relay: true, decided: { until: at(100) } })
      expect(await store.admin.explain(client, at(150))).toMatchObject({ relay: true, decided: { until: at(200) } })
      expect(await store.admin.explain(client, at(200))).toMatchObject({ relay: false })
    })

    test.each(['127.0.0.1', '127.0.0.0/8', '0.0.0.0/0', '::/0', '::1', '224.1.0.0/16', 'fe80::/64'])(
      '%s is refused',
      async text => {
        expect(await store.admin.allow(net(text), forEver)).toHaveProperty('refused')
        expect(await store.admin.allowances()).toEqual([])
      },
    )

    test('a network with the host and its proxy may be allowed, except these two addresses', async () => {
      const office = make({
        neverGrant: new NetworkSet([net('198.51.100.1')]),
        ownAddresses: () => new Set([ip('198.51.100.2')]),
      })
      await office.admin.allow(net('198.51.100.0/24'), forEver)
      expect(await mayRelay(office, 1, ip('198.51.100.1'))).toBe(false)
      expect(await mayRelay(office, 1, ip('198.51.100.2'))).toBe(false)
      expect(await mayRelay(office, 1, ip('198.51.100.3'))).toBe(true)
    })
  })

  describe('clock steps', () => {
    test('a login more than 60 s ahead is invalid; the next login replaces it; the sweep removes it', async () => {
      store.clock.now = at(3600)
      await record(store, login(A), login(B))
      expect(await mayRelay(store, 3600 - 60)).toBe(true)
      expect(await mayRelay(store, 3600 - 60.001)).toBe(false)
      store.clock.now = at(0)
      expect(await record(store, login(A))).toEqual([granted(1800)])
      expect(await store.admin.list()).toMatchObject([{ network: net('192.0.2.7'), first: at(0), last: at(0) }])
      expect(await store.writer.sweep()).toEqual({ grants: 1 })
      expect(await mayRelay(store, 1)).toBe(true)
    })
  })

  describe('the sweep', () => {
    test('removes rows that have ended, and no others', async () => {
      await record(store, login(A))
      store.clock.now = at(1)
      await record(store, login(B))
      expect(await store.writer.sweep({ now: at(1799.9) })).toEqual({ grants: 0 })
      expect(await store.writer.sweep({ now: at(1800) })).toEqual({ grants: 1 })
      expect(await mayRelay(store, 1800, B)).toBe(true)
    })

    test('leaves each row that another transaction has locked, and does not wait for it', async () => {
      await record(store, login(A), login(B))
      await owner.script("INSERT INTO neighbours (network, login, last) VALUES ('192.0.2.7', 'ann', '2000-01-01')")
      await owner.transaction(async session => {
        await session.script(`SELECT FROM grants WHERE ip = '192.0.2.7' FOR UPDATE; SELECT FROM neighbours FOR UPDATE`)
        expect(await store.writer.sweep({ now: at(1800) })).toEqual({ grants: 1 })
      })
      expect(await store.writer.sweep({ now: at(1800) })).toEqual({ grants: 1 })
      const { rows } = await owner.query({ text: "SELECT FROM neighbours WHERE last < '2001-01-01'", row: ignored })
      expect(rows).toEqual([])
    })

    test('reads every part of the table once; after a failure the next sweep continues with that part', async () => {
      await owner.script(`INSERT INTO grants (ip, until, last_auth, daemon)
        SELECT '198.18.0.0'::inet + n, CASE WHEN n % 2 = 0 THEN now() ELSE now() + interval '1 hour' END, now(), 'popup'
        FROM generate_series(1, 4000) n`)
      const parts: Value[] = []
      const failing: Database = {
        query: async (statement, values, options) => {
          if (statement.name === 'sweep-grants' && parts.push(values?.[1] ?? null) === 4) throw new Error('unavailable')
          return database.query(statement, values, options)
        },
        script: (text, options) => database.script(text, options),
        transaction: (work, options) => database.transaction(work, options),
        state: () => database.state(),
        onStateChange: listener => database.onStateChange(listener),
        close: () => database.close(),
      }
      const inParts = createGrantWriter(failing, grantPolicy({}), { pagesAtOnce: 10 })
      await expect(inParts.sweep()).rejects.toThrow('unavailable')
      const { grants } = await inParts.sweep()
      expect(parts.slice(0, 5)).toEqual(['(0,0)', '(10,0)', '(20,0)', '(30,0)', '(30,0)'])
      expect(grants).toBeGreaterThan(0)
      expect(grants).toBeLessThan(2000)
      expect(await inParts.sweep()).toEqual({ grants: 0 })
      const { rows } = await owner.query({
        text: 'SELECT count(*)::int AS ended, count(*) FILTER (WHERE until <= now())::int AS left FROM grants',
        row: v.object({ ended: v.number(), left: v.number() }),
      })
      expect(rows).toEqual([{ ended: 2000, left: 0 }])
    })
  })

  describe('explain', () => {
    test('reports that it has no data', async () => {
      expect(await store.admin.explain(A, null)).toMatchObject({ relay: false, decided: { rule: 'never-seen' } })
    })

    test('at the current time: the grant, as the lookup sees it', async () => {
      await record(store, login(A))
      store.clock.now = at(20)
      const explanation = await store.admin.explain(A, null)
      expect(explanation).toMatchObject({
        at: at(20),
        relay: true,
        decided: { rule: 'grant', since: at(0), until: at(1800) },
      })
      expect(explanation.decided.login).toBe('ann@example.org')
    })

    test('at an earlier time: the login that opened the relay, after the sweep has removed the grant', async () => {
      await record(store, login(A, { id: '7f3a.99', user: 'bob' }))
      await store.writer.sweep({ now: at(9000) })
      store.clock.now = at(9000)
      expect(await store.admin.explain(A, null)).toMatchObject({
        relay: false,
        decided: { rule: 'expired', since: at(0), until: at(1800), login: 'bob' },
      })
      const then = await store.admin.explain(A, at(1000))
      expect(then).toMatchObject({ relay: true, decided: { rule: 'login', since: at(0), until: at(1800) } })
      expect(then.decided).toMatchObject({ login: 'bob', session: '7f3a.99' })
      expect(await store.admin.explain(A, at(1800))).toMatchObject({ relay: false })
    })

    test('a block, during and after its time', async () => {
      await record(store, login(A))
      store.clock.now = at(100)
      await store.admin.block(
        { kind: 'network', network: net('192.0.2.0/24') },
        { ...forEver, forSeconds: 100, reason: 'spam' },
      )
      store.clock.now = at(250)
      expect(await store.admin.explain(A, at(50))).toMatchObject({ relay: true })
      const then = await store.admin.explain(A, at(150))
      expect(then).toMatchObject({ relay: false, decided: { rule: 'block', until: at(200) } })
      expect(then.decided).toMatchObject({ network: '192.0.2.0/24', owner: forEver.owner, reason: 'spam' })
      // The block has ended; the grant that it deleted does not come back.
      expect(await store.admin.explain(A, at(240))).toMatchObject({ relay: false })
      expect(await store.admin.explain(A, null)).toMatchObject({
        relay: false,
        decided: {
          rule: 'expired',
          login: 'ann@example.org',
          until: at(1800),
        },
      })
    })

    test('a login that was blocked later: explain names the block, not only the missing grant', async () => {
      await record(store, login(A))
      await store.admin.block({ kind: 'login', login: 'ann@example.org' }, { ...forEver, reason: 'stolen' })
      const { decided, rules } = await store.admin.explain(A, null)
      expect(decided).toMatchObject({ rule: 'block', relay: false, login: 'ann@example.org', reason: 'stolen' })
      expect(rules.map(({ rule }) => rule)).toEqual(['block', 'expired'])
    })

    test('a blocked login does not close the relay that another login has opened', async () => {
      await record(store, login(A))
      await store.admin.block({ kind: 'login', login: 'bob' }, forEver)
      store.clock.now = at(10)
      await record(store, login(A, { user: 'bob' }))
      expect(await store.admin.explain(A, null)).toMatchObject({ relay: true, decided: { rule: 'grant' } })
      expect(await mayRelay(store, 10, A)).toBe(true)
    })

    test('a refused login', async () => {
      await store.admin.block({ kind: 'login', login: 'ann@example.org' }, forEver)
      await record(store, login(A))
      const explanation = await store.admin.explain(A, null)
      expect(explanation).toMatchObject({ relay: false, decided: { rule: 'block' } })
      expect(explanation.rules[1]).toMatchObject({ rule: 'refused-login', reason: 'blocked' })
    })

    test('an address of never_grant, and an allowance', async () => {
      await store.admin.allow(net('198.51.100.0/24'), forEver)
      expect(await store.admin.explain(ip('198.51.100.1'), null)).toMatchObject({
        relay: true,
        decided: { rule: 'allowance' },
      })
      expect(await store.admin.explain(ip('127.0.0.1'), null)).toMatchObject({
        relay: false,
        decided: { rule: 'never-granted' },
      })
      const behind = make({ trusted: { 'wrap.proxy_trust': new NetworkSet([net('198.51.100.1')]) } })
      expect(await behind.admin.explain(ip('198.51.100.1'), null)).toMatchObject({
        relay: false,
        decided: { rule: 'never-granted', reason: expect.stringContaining('listed in wrap.proxy_trust') },
      })
      expect(await mayRelay(behind, 1, ip('198.51.100.1'))).toBe(false)
      expect(await mayRelay(behind, 1, ip('198.51.100.2'))).toBe(true)
    })
  })
}

describe('on the embedded PostgreSQL', () => {
  const database = createTestDatabase()
  const opened: { owner?: Database; writer?: Database; reader?: Database } = {}
  beforeAll(async () => {
    const made = await database
    Object.assign(opened, { owner: made.owner, writer: made.open('pop3authd'), reader: made.open('authwrap') })
  })
  afterAll(async () => (await database).remove())
  suite(() => sure(opened))
})

describeWith([DEBIAN_POSTGRES], "on the host's own PostgreSQL", () => {
  let cluster: PostgresCluster
  const opened: { owner?: Database; writer?: Database; reader?: Database } = {}
  beforeAll(async () => {
    cluster = await PostgresCluster.start()
    const open = (user: string, password: string): Database =>
      openDatabase({
        hosts: [{ host: '127.0.0.1', port: cluster.port }],
        database: 'postgres',
        user,
        password: { reveal: () => password },
        applicationName: 'tests',
      })
    const owner = open('postgres', PostgresCluster.password)
    await migrate(owner, new URL('../../sql/', import.meta.url).pathname)
    await owner.script("ALTER ROLE pop3authd PASSWORD 'w'; ALTER ROLE authwrap PASSWORD 'r'")
    Object.assign(opened, { owner, writer: open('pop3authd', 'w'), reader: open('authwrap', 'r') })
  })
  afterAll(async () => {
    await Promise.all(Object.values(opened).map(database => database.close()))
    await cluster.remove()
  })
  suite(() => sure(opened))
})

function sure({ owner, writer, reader }: { owner?: Database; writer?: Database; reader?: Database }) {
  if (owner === undefined || writer === undefined || reader === undefined) throw new Error('not opened')
  return { owner, writer, reader }
}
