import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { int8, type Statement, timestamptz } from '../database/statement.ts'

/** What the histories say of one login: whether its owner still needs POP before SMTP. */
export type UsageRow = {
  readonly login: string
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
 * grants a /64 covers it whole. The gate reports a use in whole seconds, so that a login of the same
 * second counts as the earlier one.
 */
const REPORT: Statement<UsageRow> = {
  row: v.object({
    login: v.string(),
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
  FROM relay_use u CROSS JOIN LATERAL (
    SELECT e.username FROM login_event e
    WHERE e.network = ANY (ARRAY[u.ip, CASE WHEN family(u.ip) = 6 THEN network(set_masklen(u.ip, 64))::inet END])
      AND e.at < date_trunc('second', u.at) + interval '1 second' AND e.until > u.at AND e.username IS NOT NULL
    ORDER BY e.at DESC LIMIT 1) l
  WHERE u.at > now() - make_interval(days => $1::int)
  GROUP BY 1
)
SELECT logins.login, logins.last_login AS "lastLogin", logins.logins, logins.addresses, logins.last_address AS "lastAddress",
       logins.tls_logins AS "tlsLogins",
       logins.daemons, logins.methods, uses.last_relay AS "lastRelay", coalesce(uses.relays, 0) AS relays
FROM logins LEFT JOIN uses USING (login)
ORDER BY uses.last_relay DESC NULLS LAST, logins.last_login DESC, logins.login`,
}

/** Every login of the last days, those whose grants were used last first. */
export const reportUsage = async (database: Database, days: number): Promise<readonly UsageRow[]> =>
  (await database.query(REPORT, [days])).rows
