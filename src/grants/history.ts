/** Reads the histories: logins and mail in order of time, and logins that still need the relay. */
import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { int8, type Statement, timestamptz } from '../database/statement.ts'
import type { RelayVerdict } from '../wire/usage-event.ts'

/**
 * An event of the histories. `grant` and `refused` are logins; `relay` is relayed mail; `closed` is
 * a client for which the gate found no grant.
 */
export type HistoryEvent = {
  readonly at: Date
  readonly kind: 'grant' | 'refused' | 'relay' | 'closed'
  readonly ip: string
  /** Login and daemon, or the service; for refusals the reason as well. */
  readonly detail: string
  /** The host that received the login, or whose gate decided; null: stored by an older release. */
  readonly host: string | null
}

/** Events of one kind in one answer. */
export const MAX_EVENTS = 1000

const row = v.object({
  at: timestamptz,
  kind: v.picklist(['grant', 'refused', 'relay', 'closed']),
  ip: v.string(),
  detail: v.string(),
  host: v.nullable(v.string()),
})

/** The decisions of one service of a host within the minute that began `at`. */
export type MinuteTally = { readonly at: Date; readonly host: string; readonly service: string } & Readonly<
  Record<RelayVerdict, number>
>

/**
 * $1 after this moment. The clock of the database decides what is new; a second is left for
 * transactions under way.
 */
const LOGINS: Statement<HistoryEvent> = {
  row,
  text: `
SELECT date_trunc('milliseconds', at) AS at, CASE WHEN refused IS NULL THEN 'grant' ELSE 'refused' END AS kind, host(ip) AS ip,
       concat_ws(' ', daemon, CASE WHEN tls THEN 'tls' END, method, username, refused) AS detail, host
FROM login_event WHERE at > $1 AND at <= now() - interval '1 second'
ORDER BY at LIMIT ${MAX_EVENTS}`,
}

/**
 * As LOGINS; the gate reports its usage events in whole seconds and later, so they get more time.
 */
const RELAYS: Statement<HistoryEvent> = {
  row,
  text: `
SELECT date_trunc('milliseconds', at) AS at, 'relay' AS kind, host(ip) AS ip, service AS detail, host
FROM usage_event WHERE at > $1 AND at <= now() - interval '4 seconds'
ORDER BY at LIMIT ${MAX_EVENTS}`,
}

/**
 * A sample of the refused addresses: each host and service has its latest, at most MAX_RECENT
 * addresses.
 */
const REFUSED: Statement<HistoryEvent> = {
  row,
  text: `
SELECT date_trunc('milliseconds', at) AS at, 'closed' AS kind, host(ip) AS ip, service AS detail, host
FROM gate_refusals CROSS JOIN unnest(addresses) AS ip WHERE at > $1
ORDER BY at LIMIT ${MAX_EVENTS}`,
}

/** Minutes that are over, and for which the last reports have come. */
const TALLIES: Statement<MinuteTally> = {
  row: v.object({
    at: timestamptz,
    host: v.string(),
    service: v.string(),
    relayed: int8,
    refused: int8,
    undecided: int8,
    never: int8,
  }),
  text: `
SELECT minute AS at, host, service, relayed, refused, undecided, never
FROM gate_decisions WHERE minute > $1 AND minute <= now() - interval '65 seconds'
ORDER BY minute, host, service LIMIT ${MAX_EVENTS}`,
}

const NOW: Statement<{ now: Date }> = { row: v.object({ now: timestamptz }), text: 'SELECT now() AS now' }

/** The time of the database. */
export async function databaseNow(database: Database): Promise<Date> {
  const { rows } = await database.query(NOW)
  const [row] = rows
  if (row === undefined) throw new Error('the database gave no time')
  return row.now
}

/** Logins after a time, oldest first, at most MAX_EVENTS; call again with the last one's time. */
export const loginsSince = async (database: Database, moment: Date): Promise<readonly HistoryEvent[]> =>
  (await database.query(LOGINS, [moment])).rows

/** Relayed mail after a time, as loginsSince. */
export const relaysSince = async (database: Database, moment: Date): Promise<readonly HistoryEvent[]> =>
  (await database.query(RELAYS, [moment])).rows

/** Refused clients, as loginsSince; a sample, once a second at most. */
export const refusedSince = async (database: Database, moment: Date): Promise<readonly HistoryEvent[]> =>
  (await database.query(REFUSED, [moment])).rows

/** Tallies of complete minutes that began after a time, oldest first. */
export const talliesSince = async (database: Database, moment: Date): Promise<readonly MinuteTally[]> =>
  (await database.query(TALLIES, [moment])).rows

/** The history of one login: it shows whether its owner still needs POP before SMTP. */
export type UsageRow = {
  readonly login: string
  /** Its device; null: it has none. */
  readonly device: string | null
  readonly lastLogin: Date
  readonly logins: number
  readonly addresses: number
  /** Where the last login came from. */
  readonly lastAddress: string
  /** How many of the logins were under TLS. */
  readonly tlsLogins: number
  readonly daemons: string
  readonly methods: string
  /** Last mail relayed by a grant of this login, as far as the gate reports uses; null: none. */
  readonly lastRelay: Date | null
  readonly relays: number
}

/**
 * $1 days. A use belongs to the login whose grant covered the address at that time; a login that
 * grants a /64 covers it whole. The gate reports a use in whole seconds, so that a login of the
 * same second counts as the earlier one.
 */
const REPORT: Statement<UsageRow> = {
  row: v.object({
    login: v.string(),
    device: v.nullable(v.string()),
    lastLogin: timestamptz,
    logins: int8,
    addresses: int8,
    lastAddress: v.string(),
    tlsLogins: int8,
    daemons: v.string(),
    methods: v.string(),
    lastRelay: v.nullable(timestamptz),
    relays: int8,
  }),
  text: `
WITH logins AS (
  SELECT login_key(username) AS login, max(at) AS last_login, count(*) AS logins, count(DISTINCT network) AS addresses,
         (array_agg(host(ip) ORDER BY at DESC))[1] AS last_address,
         count(*) FILTER (WHERE tls) AS tls_logins,
         string_agg(DISTINCT daemon, ',' ORDER BY daemon) AS daemons,
         string_agg(DISTINCT method, ',' ORDER BY method) AS methods
  FROM login_event
  WHERE refused IS NULL AND username IS NOT NULL AND at > now() - make_interval(days => $1::int)
  GROUP BY 1
), uses AS (
  SELECT login_key(l.username) AS login, max(u.at) AS last_relay, count(*) AS relays
  FROM usage_event u CROSS JOIN LATERAL (
    SELECT e.username FROM login_event e
    WHERE e.network = ANY (ARRAY[u.ip, CASE WHEN family(u.ip) = 6 THEN network(set_masklen(u.ip, 64))::inet END])
      AND e.at < date_trunc('second', u.at) + interval '1 second' AND e.until > u.at AND e.username IS NOT NULL
    ORDER BY e.at DESC LIMIT 1) l
  WHERE u.at > now() - make_interval(days => $1::int)
  GROUP BY 1
)
SELECT logins.login, d.device, logins.last_login AS "lastLogin", logins.logins, logins.addresses, logins.last_address AS "lastAddress",
       logins.tls_logins AS "tlsLogins",
       logins.daemons, logins.methods, uses.last_relay AS "lastRelay", coalesce(uses.relays, 0) AS relays
FROM logins LEFT JOIN uses USING (login) LEFT JOIN device_logins d USING (login)
ORDER BY uses.last_relay DESC NULLS LAST, logins.last_login DESC, logins.login`,
}

/** Every login of the last days, those whose grants were used last first. */
export const reportUsage = async (database: Database, days: number): Promise<readonly UsageRow[]> =>
  (await database.query(REPORT, [days])).rows

const UNSEEN: Statement<{ name: string }> = {
  row: v.object({ name: v.string() }),
  text: `
SELECT d.name FROM devices d
WHERE NOT EXISTS (
  SELECT FROM device_logins l JOIN login_event e ON login_key(e.username) = l.login
  WHERE l.device = d.name AND e.refused IS NULL AND e.at > now() - make_interval(days => $1::int))
ORDER BY d.name`,
}

/** Devices of which no login came in the last days. */
export const unseenDevices = async (database: Database, days: number): Promise<readonly string[]> =>
  (await database.query(UNSEEN, [days])).rows.map(({ name }) => name)
