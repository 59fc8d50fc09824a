/** The grants and blocks as an operator sees and changes them: allow, block and explain. */
import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { endTime, ignored, int8, type Statement, timestamptz } from '../database/statement.ts'
import { formatNetwork, type IpAddress, isSingleAddress, type Network } from '../wire/ip-address.ts'
import { notifyChange } from './grant-changes.ts'
import type { GrantPolicy } from './grant-policy.ts'
import type {
  AdminRuleRequest,
  AllowanceRow,
  BlockRow,
  BlockTarget,
  Explanation,
  GrantAdmin,
  GrantRefusal,
  GrantRow,
  LastRelay,
  QueryOptions,
  Rule,
  RuleFacts,
} from './grant-store.ts'
import { isPastLogin, networkColumn } from './grant-store.ts'

const LIST: Statement<GrantRow> = {
  row: v.object({
    network: networkColumn,
    until: timestamptz,
    user: v.nullable(v.string()),
    daemon: v.string(),
    tls: v.nullable(v.boolean()),
    first: timestamptz,
    last: timestamptz,
    logins: int8,
    host: v.nullable(v.string()),
  }),
  // The row of the history that the grant's last login made: one look into one index of one day.
  text: `
SELECT ip AS network, until, username AS user, daemon, tls, first_auth AS first, last_auth AS last, hits AS logins,
       (SELECT e.host FROM login_event e WHERE e.network = g.ip AND e.at = g.last_auth AND e.refused IS NULL LIMIT 1) AS host
FROM grants g
WHERE until > coalesce($1::timestamptz, now()) AND ${isPastLogin('last_auth', 'coalesce($1::timestamptz, now())')}
ORDER BY last_auth DESC, ip
LIMIT $2::bigint`,
}

type FoundRule = RuleFacts & { readonly rule: string; readonly since: Date; readonly until: Date | null }

/**
 * The rows that concern an address at a time.
 *
 * $1 address, $5 the IPv4 address in it or null, $2 its row of grants, $3 the time, $4 whether the
 * time is past. For the past the history also counts, because grants were refreshed or swept since.
 * For the present only the grants count.
 *
 * Three logins count: the last one that was valid then, the last one that was granted, and the last
 * one that was refused within the day before. A block removes the grant of a login permanently.
 * `last-login-block`: the block of the last login, granted or not.
 */
const EXPLAIN: Statement<FoundRule> = {
  row: v.object({
    rule: v.picklist([
      'block',
      'login-block',
      'last-login-block',
      'allowance',
      'grant',
      'login',
      'refused-login',
      'expired',
    ]),
    network: v.nullable(v.string()),
    login: v.nullable(v.string()),
    owner: v.nullable(v.string()),
    reason: v.nullable(v.string()),
    daemon: v.nullable(v.string()),
    method: v.nullable(v.string()),
    session: v.nullable(v.string()),
    host: v.nullable(v.string()),
    since: timestamptz,
    until: endTime,
  }),
  text: `
WITH last_login AS (
  SELECT * FROM login_event
  WHERE $4::boolean AND network = $2::inet AND at <= $3 AND until > $3
    AND NOT EXISTS (
      SELECT FROM blocks b
      WHERE (b.net >>= $1::inet OR b.net >>= $5::inet OR b.login = login_key(username)) AND b.since > login_event.at AND b.since <= $3)
  ORDER BY at DESC LIMIT 1
), named AS (
  SELECT username, last_auth AS at FROM grants WHERE ip = $2::inet AND last_auth <= $3 AND until > $3
  UNION ALL
  SELECT username, at FROM last_login
  ORDER BY at DESC LIMIT 1
), newest AS (
  SELECT username FROM login_event WHERE network = $2::inet AND at <= $3 AND username IS NOT NULL ORDER BY at DESC LIMIT 1
)
SELECT 'block' AS rule, net::text AS network, NULL AS login, owner, reason,
       NULL AS daemon, NULL AS method, NULL AS session, NULL AS host, since, until
FROM blocks WHERE (net >>= $1::inet OR net >>= $5::inet) AND (since <= $3 OR NOT $4::boolean) AND until > $3
UNION ALL
SELECT 'login-block', NULL, b.login, b.owner, b.reason, NULL, NULL, NULL, NULL, b.since, b.until
FROM blocks b JOIN named ON b.login = login_key(named.username) WHERE (b.since <= $3 OR NOT $4::boolean) AND b.until > $3
UNION ALL
SELECT 'last-login-block', NULL, b.login, b.owner, b.reason, NULL, NULL, NULL, NULL, b.since, b.until
FROM blocks b JOIN newest ON b.login = login_key(newest.username) WHERE (b.since <= $3 OR NOT $4::boolean) AND b.until > $3
UNION ALL
SELECT 'allowance', net::text, NULL, owner, reason, NULL, NULL, NULL, NULL, since, at_that_time.until
FROM allowances, LATERAL (SELECT CASE WHEN $4::boolean THEN coalesce(ended, until) ELSE until END AS until) AS at_that_time
WHERE net >>= $1::inet AND since <= $3 AND at_that_time.until > $3
UNION ALL
SELECT 'grant', NULL, username, NULL, NULL, daemon, NULL, NULL, (
    SELECT e.host FROM login_event e WHERE e.network = $2::inet AND e.at = last_auth AND e.refused IS NULL LIMIT 1
  ), last_auth, until
FROM grants WHERE ip = $2::inet AND last_auth <= $3 AND until > $3
UNION ALL
SELECT 'login', NULL, username, NULL, NULL, daemon, method, session, host, at, until FROM last_login
UNION ALL
(SELECT 'refused-login', NULL, username, NULL, refused, daemon, method, NULL, host, at, NULL
 FROM login_event
 WHERE network = $2::inet AND at <= $3 AND at > $3 - interval '1 day' AND refused IS NOT NULL
 ORDER BY at DESC LIMIT 1)
UNION ALL
(SELECT 'expired', NULL, username, NULL, NULL, daemon, method, NULL, host, at, until
 FROM login_event
 WHERE network = $2::inet AND at <= $3 AND refused IS NULL
 ORDER BY at DESC LIMIT 1)`,
}

/** $1 address, $2 the time. */
const LAST_RELAY: Statement<LastRelay> = {
  row: v.object({ at: timestamptz, service: v.string(), host: v.nullable(v.string()) }),
  text: 'SELECT at, service, host FROM usage_event WHERE ip = $1::inet AND at <= $2 ORDER BY at DESC LIMIT 1',
}

const CLOCK: Statement<{ now: Date }> = { row: v.object({ now: timestamptz }), text: 'SELECT now() AS now' }

/**
 * $1 network, $2 seconds or null, $3 reason, $4 owner, $5 now or null, $6 the IPv4 address in a
 * single address, or null. The new row replaces the old one.
 */
const ALLOW: Statement<{ until: Date | null }> = {
  row: v.object({ until: endTime }),
  text: `
WITH ended AS (
  UPDATE allowances SET until = since, ended = coalesce($5::timestamptz, now())
  WHERE net = $1::cidr AND until > since AND until > coalesce($5::timestamptz, now())
)
INSERT INTO allowances (net, since, until, reason, owner, embedded_ipv4)
VALUES ($1::cidr, coalesce($5::timestamptz, now()),
        coalesce(coalesce($5::timestamptz, now()) + make_interval(secs => $2::float8), 'infinity'), $3, $4, $6::inet)
RETURNING until`,
}

/** With `until` at `since` the allowance is in force at no time, also if the clock is set back. */
const DISALLOW: Statement<unknown> = {
  row: ignored,
  text: `
UPDATE allowances SET until = since, ended = coalesce($2::timestamptz, now())
WHERE net = $1::cidr AND until > since AND until > coalesce($2::timestamptz, now())`,
}

/** $1 network or null, $2 login or null, then as ALLOW. */
const BLOCK: Statement<{ until: Date | null }> = {
  row: v.object({ until: endTime }),
  text: `
WITH ended AS (
  UPDATE blocks SET until = coalesce($6::timestamptz, now())
  WHERE (net = $1::cidr OR login = login_key($2)) AND until > coalesce($6::timestamptz, now())
)
INSERT INTO blocks (net, login, since, until, reason, owner)
VALUES ($1::cidr, login_key($2), coalesce($6::timestamptz, now()),
        coalesce(coalesce($6::timestamptz, now()) + make_interval(secs => $3::float8), 'infinity'), $4, $5)
RETURNING until`,
}

/**
 * After BLOCK, in the same transaction: logins committed meanwhile are seen, later ones see the
 * block.
 */
const REMOVE_BLOCKED: Statement<unknown> = {
  row: ignored,
  text: 'DELETE FROM grants WHERE ip <<= $1::cidr OR embedded_ipv4 <<= $1::cidr OR login_key(username) = login_key($2)',
}

/** $1 login. The history, the grants and the devices name logins. */
const KNOWN_LOGIN: Statement<{ known: boolean }> = {
  row: v.object({ known: v.boolean() }),
  text: `
SELECT EXISTS (SELECT FROM grants WHERE login_key(username) = login_key($1))
    OR EXISTS (SELECT FROM device_logins WHERE login = login_key($1))
    OR EXISTS (SELECT FROM login_event WHERE login_key(username) = login_key($1)) AS known`,
}

const UNBLOCK: Statement<unknown> = {
  row: ignored,
  text: `
UPDATE blocks SET until = coalesce($3::timestamptz, now())
WHERE (net = $1::cidr OR login = login_key($2)) AND until > coalesce($3::timestamptz, now())`,
}

const BLOCKS: Statement<{
  net: Network | null
  login: string | null
  since: Date
  until: Date | null
  reason: string
  owner: string
}> = {
  row: v.object({
    net: v.nullable(networkColumn),
    login: v.nullable(v.string()),
    since: timestamptz,
    until: endTime,
    reason: v.string(),
    owner: v.string(),
  }),
  text: `
SELECT net, login, since, until, reason, owner FROM blocks
WHERE until > coalesce($1::timestamptz, now()) ORDER BY since, id`,
}

const ALLOWANCES: Statement<AllowanceRow> = {
  row: v.object({ network: networkColumn, since: timestamptz, until: endTime, reason: v.string(), owner: v.string() }),
  text: `
SELECT net AS network, since, until, reason, owner FROM allowances
WHERE since <= coalesce($1::timestamptz, now()) AND until > coalesce($1::timestamptz, now()) ORDER BY since, id`,
}

const MAX_LISTED = 1_000_000

export type GrantAdminOptions = {
  /** For tests: the time that stands for the database's. */
  readonly now?: () => Date | null
}

/**
 * The administrator's side of the grants, on a database opened with the role `pop3authd` or the
 * owner.
 */
export function createGrantAdmin(database: Database, policy: GrantPolicy, options: GrantAdminOptions = {}): GrantAdmin {
  const { now = () => null } = options

  return {
    async list({ signal, limit = MAX_LISTED }: QueryOptions & { readonly limit?: number } = {}) {
      return (await database.query(LIST, [now(), limit], { signal })).rows
    },

    async explain(ip: IpAddress, at: Date | null, { signal }: QueryOptions = {}): Promise<Explanation> {
      const time = at ?? now() ?? (await databaseTime(database, signal))
      const { rows } = await database.query(
        EXPLAIN,
        [ip, policy.rowOf(ip), time, at !== null, policy.embeddedIpv4(ip) ?? null],
        { signal },
      )
      const relayed = await database.query(LAST_RELAY, [ip, time], { signal })
      return { ...explanation(policy, ip, time, rows), lastRelay: relayed.rows[0] ?? null }
    },

    async allow(target: Network, request: AdminRuleRequest, { signal }: QueryOptions = {}) {
      const refused = policy.neverList.networkRefusal(target)
      if (refused !== undefined) return { refused }
      const embedded = isSingleAddress(target) ? policy.embeddedIpv4(target.base) : undefined
      const values = [formatNetwork(target), request.forSeconds, request.reason, request.owner, now(), embedded ?? null]
      const { rows } = await database.query(ALLOW, values, { signal, durable: true })
      await notifyChange(database)
      return { until: rows[0]?.until ?? null, exceptions: policy.neverList.exceptionsIn(target) }
    },

    async disallow(target: Network, { signal }: QueryOptions = {}) {
      const { count } = await database.query(DISALLOW, [formatNetwork(target), now()], { signal, durable: true })
      await notifyChange(database)
      return count
    },

    async block(target: BlockTarget, request: AdminRuleRequest, { signal }: QueryOptions = {}) {
      const work = async (session: Pick<Database, 'query'>) => {
        const rule = [request.forSeconds, request.reason, request.owner, now()]
        const { rows } = await session.query(BLOCK, [...columnsOf(target), ...rule])
        const removed = await session.query(REMOVE_BLOCKED, columnsOf(target))
        return { removed: removed.count, until: rows[0]?.until ?? null }
      }
      const done = await database.transaction(work, { signal, durable: true })
      await notifyChange(database)
      return done
    },

    async isKnownLogin(login: string, { signal }: QueryOptions = {}) {
      const { rows } = await database.query(KNOWN_LOGIN, [login], { signal })
      return rows[0]?.known ?? false
    },

    async unblock(target: BlockTarget, { signal }: QueryOptions = {}) {
      const { count } = await database.query(UNBLOCK, [...columnsOf(target), now()], { signal, durable: true })
      await notifyChange(database)
      return count
    },

    async blocks({ signal }: QueryOptions = {}): Promise<readonly BlockRow[]> {
      const { rows } = await database.query(BLOCKS, [now()], { signal })
      return rows.map(({ net, login, ...rule }) => ({ ...rule, target: targetOf(net, login) }))
    },

    async allowances({ signal }: QueryOptions = {}) {
      return (await database.query(ALLOWANCES, [now()], { signal })).rows
    },
  }
}

async function databaseTime(database: Database, signal: AbortSignal | undefined): Promise<Date> {
  const { rows } = await database.query(CLOCK, [], { signal })
  const [row] = rows
  if (row === undefined) throw new Error('the database gave no time')
  return row.now
}

/** The same order as the gate's: never-granted, blocks, logins that count, allowances. */
function explanation(
  policy: GrantPolicy,
  ip: IpAddress,
  at: Date,
  findings: readonly FoundRule[],
): Omit<Explanation, 'lastRelay'> {
  const never = policy.neverList.refusal(ip)
  const noLogin = policy.neverList.loginRefusal(ip)
  const rules: Rule[] = []
  const add = (rule: Rule['rule'], relay: boolean, wanted: string): void => {
    for (const { rule: found, ...facts } of findings) {
      if (found === wanted) rules.push({ rule, relay, ...facts })
    }
  }
  const addNever = (reason: GrantRefusal): void => {
    rules.push({
      ...factsOf(ip),
      rule: 'never-granted',
      relay: false,
      reason: policy.neverList.describe(ip) ?? reason,
    })
  }
  if (never !== undefined) addNever(never)
  add('block', false, 'block')
  // A private address under deny_private, and the login's own block, stop logins but no allowance.
  const loginsCount = noLogin === undefined && !findings.some(({ rule }) => rule === 'login-block')
  if (loginsCount) {
    add('grant', true, 'grant')
    add('login', true, 'login')
  }
  add('allowance', true, 'allowance')
  if (never === undefined && noLogin !== undefined) addNever(noLogin)
  add('block', false, 'login-block')
  if (!rules.some(({ relay }) => relay)) addWhyClosed(rules, add, ip)
  const [decided = rules[0]] = rules
  if (decided === undefined) throw new Error('an explanation without a rule')
  return { ip, at, relay: decided.relay, decided, rules }
}

/** Nothing opens the relay: what happened there before, the latest first. */
function addWhyClosed(
  rules: Rule[],
  add: (rule: Rule['rule'], relay: boolean, wanted: string) => void,
  ip: IpAddress,
): void {
  if (!rules.some(({ rule }) => rule === 'block')) add('block', false, 'last-login-block')
  const known = rules.length
  add('refused-login', false, 'refused-login')
  add('expired', false, 'expired')
  const before = rules.splice(known).sort((a, b) => (b.since?.getTime() ?? 0) - (a.since?.getTime() ?? 0))
  rules.push(...before)
  if (rules.length > 0) return
  rules.push({ ...factsOf(ip), rule: 'never-seen', relay: false })
}

/** A rule about the address alone. */
const factsOf = (ip: IpAddress): Omit<Rule, 'rule' | 'relay'> => ({
  network: ip,
  login: null,
  owner: null,
  reason: null,
  daemon: null,
  method: null,
  session: null,
  host: null,
  since: null,
  until: null,
})

const columnsOf = (target: BlockTarget): [string | null, string | null] =>
  target.kind === 'network' ? [formatNetwork(target.network), null] : [null, target.login]

function targetOf(net: Network | null, login: string | null): BlockTarget {
  if (net !== null) return { kind: 'network', network: net }
  if (login !== null) return { kind: 'login', login }
  throw new Error('a block without network and login')
}
