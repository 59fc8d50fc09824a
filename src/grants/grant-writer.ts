/** The writes of authd: logins, usage events, and the removal of expired grants. */
import { hostname } from 'node:os'
import * as v from 'valibot'
import { type Clock, systemClock } from '../base/clock.ts'
import { type Database, type DatabaseOptions, type DatabaseState, openDatabase } from '../database/database.ts'
import { ignored, int8, NamedParameters, type Statement } from '../database/statement.ts'
import { formatNetwork } from '../wire/ip-address.ts'
import { GRANT_REFUSALS } from '../wire/login-event.ts'
import type { DeviceMessages, RelayTally, RelayVerdict } from '../wire/usage-event.ts'
import { Alarms } from './alarms.ts'
import { ChangeNotifier } from './grant-changes.ts'
import type { GrantPolicy } from './grant-policy.ts'
import {
  type GrantOutcome,
  type GrantRefusal,
  type GrantWriter,
  isPastLogin,
  type Login,
  type QueryOptions,
  type Swept,
  type UsageRecord,
} from './grant-store.ts'

/** Parameters of RECORD. The arrays have one element for each login. */
const LOGINS = new NamedParameters({
  ip: 'inet[]',
  /** Row of the table grants. */
  network: 'inet[]',
  /** Seconds since the login; null: now. */
  ago: 'float8[]',
  daemon: 'text[]',
  method: 'text[]',
  tls: 'boolean[]',
  login: 'text[]',
  session: 'text[]',
  /** Reason of a refusal, or null. */
  refused: 'text[]',
  /** Seconds. */
  expTime: 'float8',
  /** Seconds; 0: no limit. */
  maxLifetime: 'float8',
  /** Seconds. */
  refresh: 'float8',
  keepNames: 'boolean',
  /** Null: the time of the database. */
  now: 'timestamptz',
  /** IPv4 address in the address, or null. */
  embeddedIpv4: 'inet[]',
  host: 'text',
})
const LOGIN_NOW = `coalesce(${LOGINS.at('now')}, now())`

/**
 * Stores a batch of logins in one statement. It checks the blocks, folds the logins to one row per
 * address, upserts the rows, and writes the history. The rows are in the order of addresses, so
 * that two writers cannot deadlock.
 *
 * The table neighbours keeps the logins of an address that has several.
 *
 * A window, not a join, assigns the written rows to their logins. The plan of a prepared statement
 * expects ten rows for every batch, and a join of a thousand by a thousand rows was a nested loop.
 *
 * The outcomes come back as one row, with a word for each login in order: the end of its grant in
 * Unix seconds, or the refusal. The last column is true if an address was granted that had no grant
 * before.
 */
const RECORD: Statement<{ outcomes: string; fresh: boolean }> = {
  name: 'record-logins',
  row: v.object({ outcomes: v.string(), fresh: v.boolean() }),
  text: `
WITH login AS (
  SELECT t.n, t.ip, t.network, t.embedded_ipv4, t.daemon, t.method, t.tls, t.session, t.login,
         CASE WHEN ${LOGINS.at('keepNames')} THEN t.login END AS username,
         ${LOGIN_NOW} - make_interval(secs => coalesce(t.ago, 0)) AS at,
         coalesce(t.refused, (
           SELECT 'blocked' FROM blocks b
           WHERE (b.net >>= t.ip OR b.net >>= t.embedded_ipv4 OR b.login = login_key(t.login))
             AND b.until > ${LOGIN_NOW}
           LIMIT 1)) AS refused
  FROM unnest(${LOGINS.at('ip')}, ${LOGINS.at('network')}, ${LOGINS.at('ago')}, ${LOGINS.at('daemon')},
              ${LOGINS.at('method')}, ${LOGINS.at('tls')}, ${LOGINS.at('login')}, ${LOGINS.at('session')},
              ${LOGINS.at('refused')}, ${LOGINS.at('embeddedIpv4')})
       WITH ORDINALITY AS t(ip, network, ago, daemon, method, tls, login, session, refused, embedded_ipv4, n)
), newest AS (
  SELECT DISTINCT ON (network) network, embedded_ipv4, at, daemon, username, tls,
         min(at) OVER (PARTITION BY network) AS first, count(*) OVER (PARTITION BY network) AS hits
  FROM login WHERE refused IS NULL
  ORDER BY network, at DESC, n DESC
), written AS (
  INSERT INTO grants AS g (ip, until, last_auth, first_auth, granted_first, hits, daemon, username, tls, embedded_ipv4)
  SELECT network,
         least(at + make_interval(secs => ${LOGINS.at('expTime')}),
               CASE WHEN ${LOGINS.at('maxLifetime')} > 0 THEN first + make_interval(secs => ${LOGINS.at('maxLifetime')})
                    ELSE 'infinity' END),
         at, first, first, hits, daemon, username, tls, embedded_ipv4
  FROM newest ORDER BY network
  ON CONFLICT (ip) DO UPDATE SET (until, last_auth, first_auth, granted_first, hits, daemon, username, tls, embedded_ipv4) = (
    SELECT CASE
             WHEN NOT renewed.valid THEN excluded.until
             WHEN excluded.last_auth < g.last_auth THEN g.until
             ELSE least(excluded.last_auth + make_interval(secs => ${LOGINS.at('expTime')}),
                        CASE WHEN ${LOGINS.at('maxLifetime')} > 0 THEN renewed.granted_first + make_interval(secs => ${LOGINS.at('maxLifetime')})
                             ELSE 'infinity' END)
           END,
           CASE WHEN renewed.valid THEN greatest(g.last_auth, excluded.last_auth) ELSE excluded.last_auth END,
           CASE WHEN renewed.valid THEN least(g.first_auth, excluded.first_auth) ELSE excluded.first_auth END,
           renewed.granted_first,
           g.hits + excluded.hits,
           CASE WHEN renewed.newer THEN excluded.daemon ELSE g.daemon END,
           CASE WHEN renewed.newer THEN excluded.username ELSE g.username END,
           CASE WHEN renewed.newer THEN excluded.tls ELSE g.tls END,
           excluded.embedded_ipv4
    FROM (
      SELECT checked.valid, checked.newer,
             CASE WHEN NOT checked.valid OR g.until <= excluded.last_auth THEN excluded.granted_first
                  WHEN excluded.last_auth + make_interval(secs => ${LOGINS.at('expTime')}) <= g.granted_first THEN g.granted_first
                  ELSE least(g.granted_first, excluded.granted_first)
             END AS granted_first
      FROM (
        SELECT ${isPastLogin('g.last_auth', LOGIN_NOW)} AS valid,
               excluded.last_auth >= g.last_auth
                 OR NOT (${isPastLogin('g.last_auth', LOGIN_NOW)}) AS newer
      ) AS checked
    ) AS renewed
  )
  WHERE NOT (excluded.last_auth >= g.last_auth
    AND excluded.last_auth < g.last_auth + make_interval(secs => ${LOGINS.at('refresh')})
    AND excluded.last_auth < g.until
    AND (g.daemon, g.username, g.tls) IS NOT DISTINCT FROM (excluded.daemon, excluded.username, excluded.tls))
  RETURNING g.ip, g.until, g.granted_first = g.last_auth AS fresh
), neighbours AS (
  INSERT INTO neighbours AS old (network, login, last)
  SELECT network, login, max(at) FROM (
    SELECT network, login_key(username) AS login, at,
           min(login_key(username)) OVER (PARTITION BY network) <> max(login_key(username)) OVER (PARTITION BY network) AS several
    FROM login WHERE refused IS NULL AND username IS NOT NULL
    UNION ALL
    SELECT l.network, met.login, met.at, true
    FROM login l JOIN grants g ON g.ip = l.network,
      LATERAL (VALUES (login_key(l.username), l.at), (login_key(g.username), g.last_auth)) AS met(login, at)
    WHERE l.refused IS NULL AND g.until > l.at AND login_key(g.username) <> login_key(l.username)
  ) AS accepted
  WHERE several GROUP BY network, login ORDER BY network, login
  ON CONFLICT (network, login) DO UPDATE SET last = excluded.last
  WHERE excluded.last > old.last + interval '1 minute'
), answered AS (
  SELECT n, ip, network, daemon, method, tls, session, username, at, refused,
         CASE WHEN refused IS NULL
              THEN coalesce(written_until,
                            (SELECT g.until FROM grants g WHERE g.ip = u.network),
                            at + make_interval(secs => ${LOGINS.at('expTime')})) END AS until
  FROM (
    SELECT *, max(until) OVER (PARTITION BY network) AS written_until
    FROM (
      SELECT n, ip, network, daemon, method, tls, session, username, at, refused, NULL::timestamptz AS until FROM login
      UNION ALL
      SELECT NULL, NULL, w.ip, NULL, NULL, NULL, NULL, NULL, NULL, NULL, w.until FROM written w
    ) AS both_sides
  ) AS u
  WHERE n IS NOT NULL
), history AS (
  INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until, refused, host)
  SELECT at, ip, network, daemon, method, tls, username, session, until, refused, ${LOGINS.at('host')} FROM answered
)
SELECT string_agg(coalesce(refused, floor(date_part('epoch', until))::bigint::text), ' ' ORDER BY n) AS outcomes,
       (SELECT coalesce(bool_or(fresh), false) FROM written) AS fresh
FROM answered`,
}

const RECORD_USAGE_EVENTS: Statement<unknown> = {
  name: 'record-usage-events',
  row: ignored,
  text: `
INSERT INTO usage_event (at, ip, service, host)
SELECT least(coalesce(t.at, now()), now()), t.ip, t.service, $4::text
FROM unnest($1::timestamptz[], $2::inet[], $3::text[]) AS t(at, ip, service)`,
}

/**
 * Parameters of RECORD_TALLIES. `at` to `never` have one element for each tally. `refusedService`
 * and `refusedIp` have one element for each refused client.
 */
const TALLIES = new NamedParameters({
  host: 'text',
  at: 'timestamptz[]',
  service: 'text[]',
  relayed: 'bigint[]',
  refused: 'bigint[]',
  undecided: 'bigint[]',
  never: 'bigint[]',
  refusedService: 'text[]',
  refusedIp: 'inet[]',
  /** Null: the time of the database. */
  now: 'timestamptz',
})

/**
 * Rows are written in the order of the key, so that two writers cannot deadlock. A clock that is
 * ahead does not count into the future.
 */
const RECORD_TALLIES: Statement<unknown> = {
  name: 'record-tallies',
  row: ignored,
  text: `
WITH counted AS (
  INSERT INTO gate_decisions AS g (minute, host, service, relayed, refused, undecided, never)
  SELECT date_trunc('minute', least(t.at, coalesce(${TALLIES.at('now')}, now()))), ${TALLIES.at('host')}, t.service,
         sum(t.relayed), sum(t.refused), sum(t.undecided), sum(t.never)
  FROM unnest(${TALLIES.at('at')}, ${TALLIES.at('service')}, ${TALLIES.at('relayed')}, ${TALLIES.at('refused')},
              ${TALLIES.at('undecided')}, ${TALLIES.at('never')})
    AS t(at, service, relayed, refused, undecided, never)
  GROUP BY 1, 3 ORDER BY 1, 3
  ON CONFLICT (minute, host, service) DO UPDATE SET (relayed, refused, undecided, never) =
    (g.relayed + excluded.relayed, g.refused + excluded.refused, g.undecided + excluded.undecided, g.never + excluded.never)
)
INSERT INTO gate_refusals AS r (host, service, at, addresses)
SELECT ${TALLIES.at('host')}, t.service, coalesce(${TALLIES.at('now')}, now()), array_agg(t.ip)
FROM unnest(${TALLIES.at('refusedService')}, ${TALLIES.at('refusedIp')}) AS t(service, ip) GROUP BY t.service ORDER BY t.service
ON CONFLICT (host, service) DO UPDATE SET (at, addresses) = (excluded.at, excluded.addresses)`,
}

/** $1 time, $2 device, $3 number of messages: one of each for a report. $4 now or null. */
const RECORD_DEVICE_MESSAGES: Statement<unknown> = {
  name: 'record-device-messages',
  row: ignored,
  text: `
INSERT INTO device_messages AS m (device, hour, messages)
SELECT d.name, date_trunc('hour', least(t.at, coalesce($4::timestamptz, now())), 'UTC'), sum(t.messages)
FROM unnest($1::timestamptz[], $2::text[], $3::bigint[]) AS t(at, device, messages) JOIN devices d ON d.name = t.device
GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (device, hour) DO UPDATE SET messages = m.messages + excluded.messages`,
}

/**
 * Grants that have ended, and grants from the future (the clock was set back), which are not valid
 * in any case. $1 now or null; $2 and $3: the rows from and below these row identifiers. Also keeps
 * the time of the last login of each device, which the grant itself does not outlive.
 *
 * A row that another transaction has locked stays until the next sweep. So a sweep waits for no
 * login, and a login and a sweep cannot deadlock.
 */
const SWEEP: Statement<{ removed: number }> = {
  name: 'sweep-grants',
  row: v.object({ removed: int8 }),
  text: `
WITH removed AS (
  DELETE FROM grants WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM grants
    WHERE ctid >= $2::tid AND ctid < $3::tid
      AND (until <= coalesce($1::timestamptz, now())
        OR NOT (${isPastLogin('last_auth', 'coalesce($1::timestamptz, now())')}))
    FOR UPDATE SKIP LOCKED))
  RETURNING 1
), seen AS (
  SELECT l.login, max(g.last_auth) AS at
  FROM device_logins l JOIN grants g ON login_key(g.username) = l.login
  WHERE g.ctid >= $2::tid AND g.ctid < $3::tid
    AND ${isPastLogin('g.last_auth', 'coalesce($1::timestamptz, now())')}
  GROUP BY l.login
), newer AS (
  SELECT l.login, seen.at FROM device_logins l JOIN seen USING (login)
  WHERE l.last_login IS NULL OR l.last_login < seen.at
  FOR UPDATE OF l SKIP LOCKED
), kept AS (
  UPDATE device_logins l SET last_login = newer.at FROM newer WHERE l.login = newer.login
) SELECT count(*) AS removed FROM removed`,
}

/** Pages of the table of grants. */
const GRANT_PAGES: Statement<{ pages: number }> = {
  name: 'grant-pages',
  row: v.object({ pages: int8 }),
  text: "SELECT pg_relation_size('grants') / current_setting('block_size')::bigint AS pages",
}

/** $1 now or null: the logins of a shared address count for a day. */
const FORGET_NEIGHBOURS: Statement<unknown> = {
  name: 'forget-neighbours',
  row: ignored,
  text: `
DELETE FROM neighbours WHERE ctid = ANY (ARRAY(
  SELECT ctid FROM neighbours WHERE last < coalesce($1::timestamptz, now()) - interval '1 day'
  FOR UPDATE SKIP LOCKED))`,
}

/**
 * Pages that one statement of a sweep reads: 64 MiB, about 400,000 grants, one to two tenths of a
 * second. A login waits at most for one statement.
 */
const PAGES_AT_ONCE = 8192

/**
 * $1 host, $2 networks, $3 whether each is of addresses that are granted one by one. Rows are
 * renewed once an hour.
 */
const PUBLISH_UNGRANTABLE: Statement<unknown> = {
  name: 'publish-ungrantable',
  row: ignored,
  text: `
WITH listed AS (
  SELECT t.net, t.alone FROM unnest($2::cidr[], $3::boolean[]) AS t(net, alone)
), ended AS (
  DELETE FROM ungrantable AS old
  WHERE old.host = $1::text AND NOT EXISTS (SELECT FROM listed WHERE listed.net = old.net)
     OR old.seen < now() - interval '60 days'
)
INSERT INTO ungrantable AS u (host, net, alone) SELECT $1::text, net, alone FROM listed ORDER BY net
ON CONFLICT (host, net) DO UPDATE SET (alone, seen) = (excluded.alone, now())
WHERE u.alone <> excluded.alone OR u.seen < now() - interval '1 hour'`,
}

const KEEP_HISTORY: Statement<unknown> = { row: ignored, text: 'SELECT keep_history($1::int, $2::timestamptz)' }

export type GrantWriterOptions = {
  /** For tests: the time that stands for the database's. */
  readonly now?: () => Date | null
  /** This host's clock, by which the times of logins are given. */
  readonly clock?: Clock
  /** For tests of several hosts: the name that stands for this host's. */
  readonly host?: string
  /** For tests: the pages that one statement of a sweep reads. */
  readonly pagesAtOnce?: number
}

/**
 * The writing side of the grants, on a database opened with the role `pop3authd` (or the owner).
 */
export function createGrantWriter(
  database: Database,
  policy: GrantPolicy,
  options: GrantWriterOptions = {},
): GrantWriter {
  const { now = () => null, host = hostname(), pagesAtOnce = PAGES_AT_ONCE } = options
  const { clock = () => now()?.getTime() ?? systemClock() } = options
  const changes = new ChangeNotifier(database)
  /** The page at which the next sweep begins, because the previous one ended before it. */
  let nextPage = 0

  return {
    async record(logins: readonly Login[], { signal }: QueryOptions = {}): Promise<readonly GrantOutcome[]> {
      if (logins.length === 0) return []
      const values = LOGINS.values({
        ip: logins.map(({ event }) => event.ip),
        network: logins.map(({ event }) => policy.rowOf(event.ip)),
        // By the difference of two times of this host's clock: the database's may be minutes off.
        ago: logins.map(({ at }) => (at === null ? null : Math.max(0, clock() - at.getTime()) / 1000)),
        daemon: logins.map(({ event }) => event.daemon),
        method: logins.map(({ event }) => event.method),
        tls: logins.map(({ event }) => event.tls),
        login: logins.map(({ event }) => event.user),
        session: logins.map(({ event }) => event.id),
        refused: logins.map(({ event }) => policy.neverList.loginRefusal(event.ip) ?? null),
        expTime: policy.expTime,
        maxLifetime: policy.maxLifetime,
        refresh: policy.refreshSeconds,
        keepNames: policy.storeUser,
        now: now(),
        embeddedIpv4: logins.map(({ event }) => policy.embeddedIpv4(event.ip) ?? null),
        host,
      })
      const { rows } = await database.query(RECORD, values, { signal, durable: true })
      if (rows[0]?.fresh === true) changes.changed()
      const words = rows[0]?.outcomes.split(' ') ?? []
      if (words.length !== logins.length) throw new Error(`${words.length} outcomes for ${logins.length} logins`)
      return words.map(outcomeOf)
    },

    async recordUsageEvents(events: readonly UsageRecord[], { signal }: QueryOptions = {}): Promise<void> {
      if (events.length === 0) return
      const values = [
        events.map(({ at }) => at),
        events.map(({ ip }) => ip),
        events.map(({ service }) => service),
        host,
      ]
      await database.query(RECORD_USAGE_EVENTS, values, { signal })
    },

    async recordTallies(tallies: readonly RelayTally[], { signal }: QueryOptions = {}): Promise<void> {
      if (tallies.length === 0) return
      // Several reports of a service at once: the addresses of the latest one.
      const samples = new Map(
        tallies.filter(({ recent }) => recent.length > 0).map(({ service, recent }) => [service, recent]),
      )
      const refused = [...samples].flatMap(([service, recent]) => recent.map(ip => ({ service, ip })))
      const counts = (verdict: RelayVerdict) => tallies.map(tally => tally.counts[verdict])
      const values = TALLIES.values({
        host,
        at: tallies.map(({ at }) => new Date(at * 1000)),
        service: tallies.map(({ service }) => service),
        relayed: counts('relayed'),
        refused: counts('refused'),
        undecided: counts('undecided'),
        never: counts('never'),
        refusedService: refused.map(({ service }) => service),
        refusedIp: refused.map(({ ip }) => ip),
        now: now(),
      })
      await database.query(RECORD_TALLIES, values, { signal })
    },

    async recordDeviceMessages(messages: readonly DeviceMessages[], { signal }: QueryOptions = {}): Promise<void> {
      if (messages.length === 0) return
      const values = [
        messages.map(({ at }) => new Date(at * 1000)),
        messages.map(({ device }) => device),
        messages.map(({ count }) => count),
        now(),
      ]
      await database.query(RECORD_DEVICE_MESSAGES, values, { signal })
    },

    async publishUngrantable({ signal }: QueryOptions = {}): Promise<void> {
      const published = policy.neverList.published()
      const networks = published.map(({ network }) => formatNetwork(network))
      await database.query(PUBLISH_UNGRANTABLE, [host, networks, published.map(({ alone }) => alone)], { signal })
    },

    async sweep({ signal, now: at = now() ?? undefined } = {}): Promise<Swept> {
      const time = at ?? null
      let grants = 0
      await database.query(FORGET_NEIGHBOURS, [time], { signal })
      const pages = (await database.query(GRANT_PAGES, [], { signal })).rows[0]?.pages ?? 0
      while (nextPage < pages) {
        const range = [`(${nextPage},0)`, `(${nextPage + pagesAtOnce},0)`]
        const { rows } = await database.query(SWEEP, [time, ...range], { signal })
        grants += rows[0]?.removed ?? 0
        nextPage += pagesAtOnce
      }
      nextPage = 0
      return { grants }
    },

    async keepHistory(keepDays, { signal, now: at = now() ?? undefined } = {}): Promise<void> {
      await database.query(KEEP_HISTORY, [keepDays, at ?? null], { signal })
    },
  }
}

const isRefusal = (word: string): word is GrantRefusal => GRANT_REFUSALS.some(reason => reason === word)

function outcomeOf(word: string): GrantOutcome {
  if (isRefusal(word)) return { kind: 'refused', reason: word }
  if (!/^\d{1,15}$/.test(word)) throw new Error(`a login was neither granted nor refused: ${word}`)
  return { kind: 'granted', until: Number(word) }
}

const COUNT: Statement<{ live: number }> = {
  name: 'count-grants',
  row: v.object({ live: int8 }),
  text: 'SELECT count(*) AS live FROM grants WHERE until > now()',
}

/** Writes grants, with a separate database connection. */
export type OpenGrantWriter = GrantWriter & {
  /** Puts another policy in force from the next call on. */
  usePolicy(policy: GrantPolicy): void
  /** Grants that have not ended. */
  countLive(): Promise<number>
  /** Alarms that last, by rule. */
  countAlarms(): Promise<ReadonlyMap<string, number>>
  state(): DatabaseState
  /** Calls at each change from now on. */
  onStateChange(listener: (state: DatabaseState) => void): void
  close(): Promise<void>
}

/**
 * Connects in the background. Calls before the database is reachable fail with DatabaseUnavailable.
 */
export function openGrantWriter(options: DatabaseOptions, policy: GrantPolicy): OpenGrantWriter {
  const database = openDatabase({ ...options, planOnce: true })
  let writer = createGrantWriter(database, policy)
  return {
    record: (logins, query) => writer.record(logins, query),
    recordUsageEvents: (events, query) => writer.recordUsageEvents(events, query),
    recordTallies: (tallies, query) => writer.recordTallies(tallies, query),
    recordDeviceMessages: (messages, query) => writer.recordDeviceMessages(messages, query),
    publishUngrantable: query => writer.publishUngrantable(query),
    sweep: query => writer.sweep(query),
    keepHistory: (keepDays, query) => writer.keepHistory(keepDays, query),
    usePolicy(next) {
      writer = createGrantWriter(database, next)
      // If the database is unavailable, the next sweep publishes them.
      void writer.publishUngrantable().catch(() => undefined)
    },
    async countLive() {
      const { rows } = await database.query(COUNT)
      return rows[0]?.live ?? 0
    },
    countAlarms: () => new Alarms(database).countOpen(),
    state: () => database.state(),
    onStateChange: listener => void database.onStateChange(listener),
    close: () => database.close(),
  }
}
