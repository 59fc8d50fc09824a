/** The queries of the gate: whether addresses may relay, and every grant that counts now. */
import * as v from 'valibot'
import type { ConnectionOptions } from '../database/connection-options.ts'
import { type Database, openDatabase } from '../database/database.ts'
import type { Notifications } from '../database/notifications.ts'
import { QueryBatches } from '../database/query-batches.ts'
import { endTime, type Statement } from '../database/statement.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { listenForChanges } from './grant-changes.ts'
import type { GrantPolicy } from './grant-policy.ts'
import {
  type CurrentGrant,
  type Grant,
  type GrantReader,
  isPastLogin,
  networkColumn,
  type QueryOptions,
} from './grant-store.ts'

const source = v.picklist(['login', 'allowance'])

const grantedDevice = v.object({
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
  until: v.nullable(v.string()),
  ended: v.boolean(),
  elsewhere: v.boolean(),
})

/** The row `d` of relay_devices for the address `asked`, as JSON. */
const DEVICE = `jsonb_build_object(
       'name', d.name, 'senders', d.senders, 'recipientDomains', d.recipient_domains,
       'messagesPerHour', d.messages_per_hour, 'messagesPerDay', d.messages_per_day,
       'recipientsPerHour', d.recipients_per_hour, 'recipientsPerDay', d.recipients_per_day,
       'lineEndings', d.line_endings,
       'hours', CASE WHEN d.hours_from IS NOT NULL THEN jsonb_build_object('from', d.hours_from, 'to', d.hours_to) END,
       'until', CASE WHEN isfinite(d.until) THEN to_char(d.until AT TIME ZONE 'UTC', 'YYYY-MM-DD') END,
       'ended', d.until <= coalesce($4::timestamptz, now()),
       'places', d.places,
       'elsewhere', cardinality(d.networks) + cardinality(d.places) > 0
         AND NOT (asked.address <<= ANY (d.networks) OR coalesce(asked.ipv4 <<= ANY (d.networks), false)))`

/** The login of a row `n` of relay_neighbours is within the time of a grant, and not blocked. */
const COUNTS = `n.last > coalesce($4::timestamptz, now()) - make_interval(secs => $5::float8)
        AND (n.blocked_until IS NULL OR n.blocked_until <= coalesce($4::timestamptz, now()))`

/**
 * For each address at most one row, which means that the address may relay. $1 addresses, $2 their
 * rows of grants, each null where logins do not count, $3 the IPv4 addresses in them or null, $4
 * now or null, $5 exp_time. `position`: that of the address in $1, from 1.
 */
const LOOKUP: Statement<Omit<Grant, 'ip'> & { readonly position: number }> = {
  name: 'lookup-grants',
  row: v.object({
    position: v.number(),
    source,
    login: v.nullable(v.string()),
    until: endTime,
    age: v.number(),
    secondsLeft: v.nullable(v.number()),
    device: v.nullable(grantedDevice),
    logins: v.array(v.string()),
    granted: v.array(v.string()),
    devices: v.array(v.object({ login: v.string(), device: grantedDevice })),
  }),
  text: `
SELECT asked.position::int AS position, found.*
FROM unnest($1::inet[], $2::inet[], $3::inet[]) WITH ORDINALITY AS asked(address, network, ipv4, position),
LATERAL (
  SELECT source, login, until,
    (SELECT ${DEVICE} FROM relay_devices d WHERE d.login = login_key(yes.login)) AS device,
    ARRAY(
      SELECT n.login FROM relay_neighbours n
      WHERE n.network = asked.network AND yes.source = 'login' AND ${COUNTS}
      ORDER BY n.last DESC, n.login LIMIT 100) AS logins,
    ARRAY(
      SELECT n.login FROM relay_neighbours n
      WHERE n.network = asked.network AND yes.source = 'login' AND ${COUNTS} AND n.granted
      ORDER BY n.last DESC, n.login LIMIT 100) AS granted,
    (SELECT coalesce(jsonb_agg(jsonb_build_object('login', found.login, 'device', found.device)), '[]')
     FROM (
       SELECT n.login, ${DEVICE} AS device
       FROM relay_neighbours n JOIN relay_devices d ON d.login = n.login
       WHERE n.network = asked.network AND yes.source = 'login' AND ${COUNTS}
       ORDER BY n.last DESC, n.login LIMIT 100) AS found) AS devices,
    extract(epoch FROM coalesce($4::timestamptz, now()) - since)::float8 AS age,
    CASE WHEN isfinite(until) THEN extract(epoch FROM until - coalesce($4::timestamptz, now()))::float8 END AS "secondsLeft"
  FROM (
    SELECT 'login' AS source, username AS login, until, last_auth AS since
    FROM relay_gate
    WHERE ip = asked.network
      AND until > coalesce($4::timestamptz, now())
      AND ${isPastLogin('last_auth', 'coalesce($4::timestamptz, now())')}
      AND (login_blocked_until IS NULL OR login_blocked_until <= coalesce($4::timestamptz, now()))
    UNION ALL
    SELECT 'allowance', NULL, until, since
    FROM relay_allowances
    WHERE net >>= asked.address AND since <= coalesce($4::timestamptz, now()) AND until > coalesce($4::timestamptz, now())
  ) AS yes
  WHERE NOT EXISTS (
    SELECT FROM relay_blocks
    WHERE (net >>= asked.address OR net >>= asked.ipv4)
      AND until > coalesce($4::timestamptz, now()))
  -- A grant whose device opens nothing is the answer only where nothing else is.
  ORDER BY EXISTS (
      SELECT FROM relay_devices d
      WHERE d.login = login_key(yes.login)
        AND (d.until <= coalesce($4::timestamptz, now())
          OR cardinality(d.networks) + cardinality(d.places) > 0
            AND NOT (asked.address <<= ANY (d.networks) OR coalesce(asked.ipv4 <<= ANY (d.networks), false)))),
    until DESC
  LIMIT 1
) AS found`,
}

/**
 * $1 now or null, $2 exp_time. Lists everything that the tables permit, except a network with a
 * blocked part.
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
      AND (n.blocked_until IS NULL OR n.blocked_until <= coalesce($1::timestamptz, now()))
    ORDER BY n.last DESC, n.login LIMIT 100) AS logins
FROM (
  SELECT ip AS network, 'login' AS source, username AS login, until, embedded_ipv4
  FROM relay_gate
  WHERE until > coalesce($1::timestamptz, now())
    AND ${isPastLogin('last_auth', 'coalesce($1::timestamptz, now())')}
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

/**
 * Statements of lookups at the same time. The second one answers while the first one waits for a
 * connection that hangs.
 */
const LOOKUPS_AT_ONCE = 2
const ADDRESSES_OF_A_LOOKUP = 256

/** Reads grants, on a database opened with the role `authwrap` or another role of auth-relay. */
export function createGrantReader(
  database: Database,
  policy: GrantPolicy,
  options: GrantReaderOptions = {},
): GrantReader {
  const { now = () => null } = options
  const lookups = new QueryBatches<IpAddress, Grant>({
    statements: LOOKUPS_AT_ONCE,
    most: ADDRESSES_OF_A_LOOKUP,
    run: async (addresses, signal) => {
      const networks = addresses.map(ip => (policy.neverList.loginRefusal(ip) === undefined ? policy.rowOf(ip) : null))
      const embedded = addresses.map(ip => policy.embeddedIpv4(ip) ?? null)
      const { rows } = await database.query(LOOKUP, [addresses, networks, embedded, now(), policy.expTime], {
        signal,
        proven: true,
      })
      const found = new Map(rows.map(({ position, ...grant }) => [position, grant]))
      return addresses.map((ip, index) => {
        const grant = found.get(index + 1)
        return grant && { ip, ...grant }
      })
    },
  })
  return {
    async lookup(ip: IpAddress, { signal }: QueryOptions = {}): Promise<Grant | undefined> {
      if (policy.neverList.refusal(ip) !== undefined) return undefined
      return lookups.run(ip, signal)
    },
    async current({ signal, onProof } = {}): Promise<readonly CurrentGrant[]> {
      const { rows } = await database.query(CURRENT, [now(), policy.expTime], { signal, proven: true, onProof })
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
   * Calls `changed` soon after the list of grants changed, over a further connection; see
   * listenForChanges. Until `close`.
   */
  onChange(changed: () => void): void
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
  const database = openDatabase({ ...access, planOnce: true, applicationName: 'auth-relay wrap' })
  const listeners: Notifications[] = []
  return {
    reader: createGrantReader(database, policy),
    onChange: changed => {
      listeners.push(listenForChanges({ ...access, applicationName: 'auth-relay wrap' }, changed))
    },
    async close() {
      await Promise.all([database.close(), ...listeners.map(listener => listener.close())])
    },
  }
}
