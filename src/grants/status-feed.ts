/** The grants, logins and refusals that the status page and `auth-relay watch` show. */
import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { endTime, int8, type Statement, timestamptz } from '../database/statement.ts'
import type { Network } from '../wire/ip-address.ts'
import { networkColumn } from './grant-store.ts'

/** A grant that counts now. `login` null: names are not kept. */
export type LiveGrant = {
  readonly network: Network
  readonly until: Date
  readonly last: Date
  readonly logins: number
  readonly daemon: string
  readonly login: string | null
  readonly tls: boolean | null
}

/**
 * A login that was granted or refused, or a mail that was relayed. For a mail, `daemon` is the
 * service, and the other fields are null.
 */
export type StatusEvent = {
  readonly at: Date
  readonly kind: 'grant' | 'refused' | 'relay'
  readonly ip: string
  readonly daemon: string
  readonly method: string | null
  readonly tls: boolean | null
  readonly login: string | null
  readonly reason: string | null
}

/** Counts from `start` on, for the length of the step. */
export type EventCounts = {
  readonly start: Date
  /** Logins. */
  readonly granted: number
  readonly refused: number
  /** Clients at the gate: let through, and all others. */
  readonly relayed: number
  readonly closed: number
}

/**
 * Decisions of a service of the gates. `undecided`: the part of `closed` for which the database
 * gave no answer in time.
 */
export type ServiceCounts = {
  readonly service: string
  readonly relayed: number
  readonly closed: number
  readonly undecided: number
}

/** A device as the page shows it; `until` null: without end. */
export type StatusDevice = {
  readonly name: string
  readonly logins: readonly string[]
  /** To the minute, because authd keeps the time at its sweep. Null: no login is known. */
  readonly lastLogin: Date | null
  readonly until: Date | null
}

/** An alarm that lasts. */
export type OpenAlarm = {
  readonly rule: string
  readonly subject: string
  readonly detail: string
  readonly since: Date
}

/** Current totals, by the database's clock. */
export type Totals = {
  readonly now: Date
  readonly grants: number
  readonly allowances: number
  readonly blocks: number
  readonly schema: number
}

const TOTALS: Statement<Totals> = {
  row: v.object({ now: timestamptz, grants: int8, allowances: int8, blocks: int8, schema: v.number() }),
  text: `
SELECT clock_timestamp() AS now, grants, allowances, blocks, (SELECT max(v) FROM schema_version) AS schema
FROM status_totals`,
}

const LIVE: Statement<LiveGrant> = {
  row: v.object({
    network: networkColumn,
    until: timestamptz,
    last: timestamptz,
    logins: int8,
    daemon: v.string(),
    login: v.nullable(v.string()),
    tls: v.nullable(v.boolean()),
  }),
  text: `
SELECT network, until, last, logins, daemon, login, tls FROM status_grants ORDER BY until DESC, network LIMIT $1::bigint`,
}

const EVENTS: Statement<StatusEvent> = {
  row: v.object({
    at: timestamptz,
    kind: v.picklist(['grant', 'refused', 'relay']),
    ip: v.string(),
    daemon: v.string(),
    method: v.nullable(v.string()),
    tls: v.nullable(v.boolean()),
    login: v.nullable(v.string()),
    reason: v.nullable(v.string()),
  }),
  text: `
SELECT at, kind, host(ip) AS ip, daemon, method, tls, login, reason FROM status_events
WHERE at > now() - make_interval(secs => $1::float8) ORDER BY at DESC LIMIT $2::bigint`,
}

/**
 * When each daemon of each host last reported a login, and each service of a gate a relayed mail.
 */
export type LastByDaemon = { readonly daemon: string; readonly host: string | null; readonly at: Date }

const LAST_BY_DAEMON: Statement<LastByDaemon> = {
  row: v.object({ daemon: v.string(), host: v.nullable(v.string()), at: timestamptz }),
  text: `
SELECT daemon, host, max(at) AS at FROM status_events
WHERE at > now() - make_interval(secs => $1::float8) GROUP BY daemon, host ORDER BY daemon, host LIMIT $2::bigint`,
}

/** $1 from, $2 to, $3 seconds. */
const COUNTS: Statement<EventCounts> = {
  row: v.object({ start: timestamptz, granted: int8, refused: int8, relayed: int8, closed: int8 }),
  text: `
SELECT start, sum(granted)::bigint AS granted, sum(refused)::bigint AS refused, sum(relayed)::bigint AS relayed, sum(closed)::bigint AS closed
FROM (
  SELECT date_bin(make_interval(secs => $3::float8), at, 'epoch'::timestamptz) AS start,
    count(*) FILTER (WHERE kind = 'grant') AS granted,
    count(*) FILTER (WHERE kind = 'refused') AS refused,
    count(*) FILTER (WHERE kind = 'relay') AS relayed,
    0 AS closed
  FROM status_events WHERE at >= $1::timestamptz AND at < $2::timestamptz GROUP BY 1
  UNION ALL
  SELECT date_bin(make_interval(secs => $3::float8), minute, 'epoch'::timestamptz), 0, 0, 0, sum(refused + undecided + never)
  FROM status_gate_decisions WHERE minute >= $1::timestamptz AND minute < $2::timestamptz GROUP BY 1
) AS parts
GROUP BY start ORDER BY start`,
}

const SERVICES: Statement<ServiceCounts> = {
  row: v.object({ service: v.string(), relayed: int8, closed: int8, undecided: int8 }),
  text: `
SELECT service, sum(relayed)::bigint AS relayed, sum(closed)::bigint AS closed, sum(undecided)::bigint AS undecided
FROM (
  SELECT daemon AS service, count(*) AS relayed, 0 AS closed, 0 AS undecided FROM status_events
  WHERE kind = 'relay' AND at > now() - make_interval(secs => $1::float8) GROUP BY 1
  UNION ALL
  SELECT service, 0, sum(refused + undecided + never), sum(undecided) FROM status_gate_decisions
  WHERE minute > now() - make_interval(secs => $1::float8) GROUP BY 1
) AS parts
GROUP BY service ORDER BY 2 DESC, 3 DESC, 1`,
}

const ALARMS: Statement<OpenAlarm> = {
  row: v.object({ rule: v.string(), subject: v.string(), detail: v.string(), since: timestamptz }),
  text: 'SELECT rule, subject, detail, since FROM status_alarms WHERE until IS NULL ORDER BY since DESC LIMIT $1::bigint',
}

const DEVICES: Statement<StatusDevice> = {
  row: v.object({
    name: v.string(),
    logins: v.array(v.string()),
    lastLogin: v.nullable(timestamptz),
    until: endTime,
  }),
  text: 'SELECT name, logins, last_login AS "lastLogin", until FROM status_devices ORDER BY name LIMIT $1::bigint',
}

/** Queries of the status page. Errors are those of src/database/errors.ts. */
export interface StatusFeed {
  totals(): Promise<Totals>
  /** Grants that count now, those that end last first. */
  liveGrants(limit: number): Promise<readonly LiveGrant[]>
  /** What happened in the last seconds, newest first. */
  lastEvents(seconds: number, limit: number): Promise<readonly StatusEvent[]>
  /** By daemon and host, within the last seconds. */
  lastByDaemon(seconds: number, limit: number): Promise<readonly LastByDaemon[]>
  /**
   * Counts of the events from one moment to before another, in steps of whole seconds since 1970;
   * steps without events are left out.
   */
  countEvents(from: Date, to: Date, step: number): Promise<readonly EventCounts[]>
  /** Decisions in the last seconds by service, the busiest first. */
  services(seconds: number): Promise<readonly ServiceCounts[]>
  /** Alarms that last, the newest first. */
  alarms(limit: number): Promise<readonly OpenAlarm[]>
  /** Devices by name. */
  devices(limit: number): Promise<readonly StatusDevice[]>
}

/** The status page's side of the grants, on a database opened with the role `authstatus`. */
export const createStatusFeed = (database: Pick<Database, 'query'>): StatusFeed => ({
  async totals() {
    const { rows } = await database.query(TOTALS)
    const [row] = rows
    if (row === undefined) throw new Error('the database counted nothing')
    return row
  },
  liveGrants: async limit => (await database.query(LIVE, [limit])).rows,
  lastEvents: async (seconds, limit) => (await database.query(EVENTS, [seconds, limit])).rows,
  lastByDaemon: async (seconds, limit) => (await database.query(LAST_BY_DAEMON, [seconds, limit])).rows,
  countEvents: async (from, to, step) => (await database.query(COUNTS, [from, to, step])).rows,
  services: async seconds => (await database.query(SERVICES, [seconds])).rows,
  alarms: async limit => (await database.query(ALARMS, [limit])).rows,
  devices: async limit => (await database.query(DEVICES, [limit])).rows,
})
