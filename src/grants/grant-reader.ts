import * as v from 'valibot'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { type Database, openDatabase } from '../database/database.ts'
import type { Notifications } from '../database/notifications.ts'
import { endTime, type Statement } from '../database/statement.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { listenForChanges } from './grant-changes.ts'
import type { GrantPolicy } from './grant-policy.ts'
import { type CurrentGrant, type Grant, type GrantReader, networkColumn, type QueryOptions } from './grant-store.ts'

const source = v.picklist(['login', 'allowance'])

/**
 * $1 address, $2 its row of grants, or null where logins do not count, $3 now or null, $4 the IPv4
 * address in it or null, $5 exp_time. Gives at most one row, which means that the address may
 * relay.
 */
const LOOKUP: Statement<Omit<Grant, 'ip'>> = {
  name: 'lookup-grant',
  row: v.object({
    source,
    login: v.nullable(v.string()),
    until: endTime,
    age: v.number(),
    secondsLeft: v.nullable(v.number()),
    device: v.nullable(
      v.object({
        name: v.string(),
        senders: v.array(v.string()),
        recipientDomains: v.array(v.string()),
        messagesPerHour: v.number(),
        messagesPerDay: v.number(),
        recipientsPerHour: v.number(),
        recipientsPerDay: v.number(),
        lineEndings: v.picklist(['strict', 'repair']),
        hours: v.nullable(v.object({ from: v.number(), to: v.number() })),
        places: v.array(v.string()),
        ended: v.boolean(),
        elsewhere: v.boolean(),
      }),
    ),
    logins: v.array(v.string()),
  }),
  text: `
SELECT source, login, until,
  (SELECT jsonb_build_object(
     'name', d.name, 'senders', d.senders, 'recipientDomains', d.recipient_domains,
     'messagesPerHour', d.messages_per_hour, 'messagesPerDay', d.messages_per_day,
     'recipientsPerHour', d.recipients_per_hour, 'recipientsPerDay', d.recipients_per_day,
     'lineEndings', d.line_endings,
     'hours', CASE WHEN d.hours_from IS NOT NULL THEN jsonb_build_object('from', d.hours_from, 'to', d.hours_to) END,
     'ended', d.until <= coalesce($3::timestamptz, now()),
     'places', d.places,
     'elsewhere', cardinality(d.networks) + cardinality(d.places) > 0
       AND NOT ($1::inet <<= ANY (d.networks) OR coalesce($4::inet <<= ANY (d.networks), false)))
   FROM relay_devices d WHERE d.login = login_key(yes.login)) AS device,
  ARRAY(
    SELECT n.login FROM relay_neighbours n
    WHERE n.network = $2::inet AND yes.source = 'login'
      AND n.last > coalesce($3::timestamptz, now()) - make_interval(secs => $5::float8)
    ORDER BY n.last DESC, n.login LIMIT 100) AS logins,
  extract(epoch FROM coalesce($3::timestamptz, now()) - since)::float8 AS age,
  CASE WHEN isfinite(until) THEN extract(epoch FROM until - coalesce($3::timestamptz, now()))::float8 END AS "secondsLeft"
FROM (
  SELECT 'login' AS source, username AS login, until, last_auth AS since
  FROM relay_gate
  WHERE ip = $2::inet
    AND until > coalesce($3::timestamptz, now())
    AND last_auth <= coalesce($3::timestamptz, now()) + interval '60 seconds'
    AND (login_blocked_until IS NULL OR login_blocked_until <= coalesce($3::timestamptz, now()))
  UNION ALL
  SELECT 'allowance', NULL, until, since
  FROM relay_allowances
  WHERE net >>= $1::inet AND since <= coalesce($3::timestamptz, now()) AND until > coalesce($3::timestamptz, now())
) AS yes
WHERE NOT EXISTS (
  SELECT FROM relay_blocks
  WHERE (net >>= $1::inet OR net >>= $4::inet)
    AND until > coalesce($3::timestamptz, now()))
-- A grant whose device opens nothing is the answer only where nothing else is.
ORDER BY EXISTS (
    SELECT FROM relay_devices d
    WHERE d.login = login_key(yes.login)
      AND (d.until <= coalesce($3::timestamptz, now())
        OR cardinality(d.networks) + cardinality(d.places) > 0
          AND NOT ($1::inet <<= ANY (d.networks) OR coalesce($4::inet <<= ANY (d.networks), false)))),
  until DESC
LIMIT 1`,
}

/**
 * $1 now or null, $2 exp_time. Everything that the tables say yes to, except that of a network with
 * a blocked part nothing is listed.
 */
const CURRENT: Statement<CurrentGrant> = {
  name: 'current-grants',
  row: v.object({
    network: networkColumn,
    source,
    login: v.nullable(v.string()),
    until: endTime,
    secondsLeft: v.nullable(v.number()),
    hasDevice: v.boolean(),
    logins: v.array(v.string()),
  }),
  text: `
SELECT network, source, login, until,
  CASE WHEN isfinite(until) THEN extract(epoch FROM until - coalesce($1::timestamptz, now()))::float8 END AS "secondsLeft",
  EXISTS (SELECT FROM relay_devices d WHERE d.login = login_key(yes.login)) AS "hasDevice",
  ARRAY(
    SELECT n.login FROM relay_neighbours n
    WHERE n.network = yes.network AND yes.source = 'login'
      AND n.last > coalesce($1::timestamptz, now()) - make_interval(secs => $2::float8)
    ORDER BY n.last DESC, n.login LIMIT 100) AS logins
FROM (
  SELECT ip AS network, 'login' AS source, username AS login, until, embedded_ipv4
  FROM relay_gate
  WHERE until > coalesce($1::timestamptz, now())
    AND last_auth <= coalesce($1::timestamptz, now()) + interval '60 seconds'
    AND (login_blocked_until IS NULL OR login_blocked_until <= coalesce($1::timestamptz, now()))
  UNION ALL
  SELECT net, 'allowance', NULL, until, embedded_ipv4
  FROM relay_allowances
  WHERE since <= coalesce($1::timestamptz, now()) AND until > coalesce($1::timestamptz, now())
) AS yes
WHERE NOT EXISTS (
  SELECT FROM relay_devices d
  WHERE d.login = login_key(yes.login)
    AND (d.until <= coalesce($1::timestamptz, now())
      OR cardinality(d.networks) + cardinality(d.places) > 0
        AND NOT (yes.network <<= ANY (d.networks) OR coalesce(yes.embedded_ipv4 <<= ANY (d.networks), false))))
AND NOT EXISTS (
  SELECT FROM relay_blocks b
  WHERE (b.net && yes.network OR b.net >>= yes.embedded_ipv4)
    AND b.until > coalesce($1::timestamptz, now()))
ORDER BY network, until DESC`,
}

export type GrantReaderOptions = {
  /** For tests: the time that stands for the database's. */
  readonly now?: () => Date | null
}

/** Reads grants, on a database opened with the role `authwrap` or another role of auth-relay. */
export function createGrantReader(
  database: Database,
  policy: GrantPolicy,
  options: GrantReaderOptions = {},
): GrantReader {
  const { now = () => null } = options
  return {
    async lookup(ip: IpAddress, { signal }: QueryOptions = {}): Promise<Grant | undefined> {
      if (policy.neverList.refusal(ip) !== undefined) return undefined
      const row = policy.neverList.loginRefusal(ip) === undefined ? policy.rowOf(ip) : null
      const { rows } = await database.query(LOOKUP, [ip, row, now(), policy.embeddedIpv4(ip) ?? null, policy.expTime], {
        signal,
        proven: true,
      })
      const found = rows[0]
      return found === undefined ? undefined : { ip, ...found }
    },
    async current({ signal }: QueryOptions = {}): Promise<readonly CurrentGrant[]> {
      const { rows } = await database.query(CURRENT, [now(), policy.expTime], { signal, proven: true })
      const parts = policy.neverList.grantableParts()
      return rows
        .filter(({ network, source }) => source === 'allowance' || !policy.neverList.isDeniedPrivate(network.base))
        .flatMap(row => parts(row.network).map(network => ({ ...row, network })))
    },
  }
}

export type OpenGrantReader = {
  readonly reader: GrantReader
  /**
   * Calls `heard` soon after the list of grants changed, over a further connection; see
   * listenForChanges. Until `close`.
   */
  onChange(heard: () => void): void
  close(): Promise<void>
}

/**
 * The gate's side of the grants in a database: connects in the background, and again whenever it
 * must. `max`: connections at once.
 */
export function openGrantReader(
  access: ConnectionOptions & { readonly statementTimeoutMs: number; readonly max: number },
  policy: GrantPolicy,
): OpenGrantReader {
  const database = openDatabase({ ...access, applicationName: 'auth-relay wrap' })
  const listeners: Notifications[] = []
  return {
    reader: createGrantReader(database, policy),
    onChange: heard => {
      listeners.push(listenForChanges({ ...access, applicationName: 'auth-relay wrap' }, heard))
    },
    async close() {
      await Promise.all([database.close(), ...listeners.map(listener => listener.close())])
    },
  }
}
