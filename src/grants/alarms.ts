/**
 * The rules of the alarms, their computation in the database, and the claim of each start and end
 * by one host.
 */

import * as v from 'valibot'
import type { Database } from '../database/database.ts'
import { arrayLiteral, ignored, int8, type Statement, timestamptz } from '../database/statement.ts'

/** A rule for alarms. The rules for Prometheus, the documents and the command use its texts. */
export type AlarmRule = {
  readonly name: string
  /** The meaning, for the administrator. */
  readonly summary: string
  readonly remedy: string
  readonly severity: 'warning' | 'critical'
  /** Found in the histories. Other rules are about one host, and its process finds them. */
  readonly isOfDatabase: boolean
  /** Kind of block that closes the subject. Absent: no block can. */
  readonly closes?: 'login' | 'network' | 'device'
}

export const ALARM_RULES: readonly AlarmRule[] = [
  {
    name: 'login_spread',
    summary: 'One login came from many addresses within an hour. Its password is probably known to others.',
    remedy: 'auth-relay block LOGIN, then change the password',
    severity: 'critical',
    isOfDatabase: true,
    closes: 'login',
  },
  {
    name: 'address_crowd',
    summary:
      'Many logins came from one address within an hour. The address is a gateway, or an attacker tries stolen passwords.',
    remedy: 'add a gateway to grants.never_grant; else auth-relay block ADDRESS',
    severity: 'warning',
    isOfDatabase: true,
    closes: 'network',
  },
  {
    name: 'device_rate',
    summary: 'A device sends mail far above its own median. It may be infected.',
    remedy: 'auth-relay device show NAME, then auth-relay block its login',
    severity: 'critical',
    isOfDatabase: true,
    closes: 'device',
  },
  {
    name: 'refusals_rise',
    summary: 'The gates refuse far more clients than on the day before.',
    remedy: 'auth-relay watch shows the refused clients',
    severity: 'warning',
    isOfDatabase: true,
  },
  {
    name: 'gate_undecided',
    summary: 'A gate had no sure answer in time. Clients with a grant are refused.',
    remedy: 'look at the database and at the log of wrap',
    severity: 'critical',
    isOfDatabase: true,
  },
  {
    name: 'device_silent',
    summary: 'A known device has not logged in for alerts.silent_days.',
    remedy: 'look at the device, or auth-relay device remove NAME',
    severity: 'warning',
    isOfDatabase: true,
  },
  {
    name: 'device_end',
    summary: 'The end date of a device is near.',
    remedy: 'auth-relay device set NAME --until DATE',
    severity: 'warning',
    isOfDatabase: true,
  },
  {
    name: 'certificate_end',
    summary: 'A certificate ends soon, or could not be read.',
    remedy: 'renew the certificate',
    severity: 'critical',
    isOfDatabase: false,
  },
  {
    name: 'database_unreachable',
    summary: 'The database does not answer. Without a database the relay is closed.',
    remedy: 'start PostgreSQL, or look at its log',
    severity: 'critical',
    isOfDatabase: false,
  },
]

/** The numbers above which the rules find an alarm. */
export type AlarmLimits = {
  /** Addresses of one login within an hour. */
  readonly loginAddresses: number
  /** Logins of one address within an hour. */
  readonly addressLogins: number
  /** Busy minutes, or messages, of a device within an hour: a multiple of its median hour. */
  readonly deviceFactor: number
  /**
   * Clients that the gates refuse, as a multiple of the mean of the day before. Fewer than 100 in
   * ten minutes are no alarm.
   */
  readonly refusalFactor: number
  readonly silentDays: number
  readonly endDays: number
}

/** A fact that a rule found now. */
export type AlarmFact = { readonly rule: string; readonly subject: string; readonly detail: string }

type Alarm = AlarmFact & {
  readonly id: number
  readonly since: Date
  /** Null: the alarm is active. */
  readonly until: Date | null
}

const alarmRow = v.object({
  id: int8,
  rule: v.string(),
  subject: v.string(),
  detail: v.string(),
  since: timestamptz,
  until: v.nullable(timestamptz),
})

/** Maximum number of alarms of one rule that one call of `look` opens. */
const MOST_OF_A_RULE = 100
/** Maximum number of starts, and of ends, that one process claims at a time. */
const MOST_CLAIMED = 20
/**
 * Minutes for which a rule must find nothing before its alarm ends, so that no alarm comes and
 * goes.
 */
const QUIET_MINUTES = 30

/** Messages of an hour below which a device has no alarm about its rate. */
const FEWEST_MESSAGES = 10
/** A device that is usually busy for more minutes of an hour has no alarm about its rate. */
const MOST_USUAL_MINUTES = 45
/** More busy minutes of an hour are an alarm with every factor of the median. */
const ALWAYS_BUSY_MINUTES = 55

/** The lock permits one call of `look` at a time among all hosts. */
const LOCK: Statement<{ locked: boolean }> = {
  row: v.object({ locked: v.boolean() }),
  text: 'SELECT pg_try_advisory_xact_lock(418565088364) AS locked',
}

/** $1 now or null. */
const REMEMBER_LOGINS: Statement<unknown> = {
  row: ignored,
  text: `
UPDATE device_logins d SET last_login = seen.at
FROM (
  SELECT login_key(username) AS login, max(at) AS at FROM login_event
  WHERE at > coalesce($1::timestamptz, now()) - interval '1 hour' AND at <= coalesce($1::timestamptz, now())
    AND refused IS NULL AND username IS NOT NULL
  GROUP BY 1) AS seen
WHERE d.login = seen.login AND (d.last_login IS NULL OR d.last_login < seen.at - interval '5 minutes')`,
}

/**
 * $1 now or null. Minutes in which a grant of a device was used, of this hour and of the one
 * before. The front and the policy and query service report each minute with mail. Other ways
 * report the minutes with a connection.
 */
const REMEMBER_HOURS: Statement<unknown> = {
  row: ignored,
  text: `
WITH used AS (
  SELECT l.device, u.at
  FROM usage_event u CROSS JOIN LATERAL (
    SELECT e.username FROM login_event e
    WHERE e.network = ANY (ARRAY[u.ip, CASE WHEN family(u.ip) = 6 THEN network(set_masklen(u.ip, 64))::inet END])
      AND e.at <= u.at AND e.until > u.at AND e.username IS NOT NULL
    ORDER BY e.at DESC LIMIT 1) AS opened
  JOIN device_logins l ON l.login = login_key(opened.username)
  WHERE u.at >= date_trunc('hour', coalesce($1::timestamptz, now())) - interval '1 hour'
    AND u.at <= coalesce($1::timestamptz, now()) AND EXISTS (SELECT FROM devices)
), forgotten AS (
  DELETE FROM device_hours WHERE hour < coalesce($1::timestamptz, now()) - interval '30 days'
)
INSERT INTO device_hours AS h (device, hour, minutes)
SELECT device, date_trunc('hour', at), count(DISTINCT date_trunc('minute', at)) FROM used GROUP BY 1, 2 ORDER BY 1, 2
ON CONFLICT (device, hour) DO UPDATE SET minutes = excluded.minutes WHERE h.minutes <> excluded.minutes`,
}

/**
 * $1 now or null; $2 addresses of a login, $3 logins of an address, $4 device factor, $5 refusal
 * factor, $6 silent days, $7 end days; $8 rules, $9 subjects, $10 details of facts that were found
 * elsewhere; $11 rules that are off.
 *
 * The median of a device is that of the hours in which it sent messages, of which there must be 20.
 * A gate of an older release, or one that does not read the envelope, counts no messages. So the
 * busy minutes decide for a device without such a median, and in an hour with fewer messages than
 * busy minutes. An hour has 60 minutes, so by its minutes a device that is nearly always busy has
 * no unusual hours.
 */
const LOOK: Statement<unknown> = {
  row: ignored,
  text: `
WITH clock AS (
  SELECT coalesce($1::timestamptz, now()) AS now
), pairs AS MATERIALIZED (
  SELECT DISTINCT e.network, login_key(e.username) AS login
  FROM login_event e, clock
  WHERE e.at > clock.now - interval '1 hour' AND e.at <= clock.now AND e.refused IS NULL AND e.username IS NOT NULL
), refused AS (
  SELECT sum(refused) FILTER (WHERE minute > clock.now - interval '10 minutes') AS lately,
         sum(refused) FILTER (WHERE minute <= clock.now - interval '10 minutes') / 143 AS before,
         min(minute) < clock.now - interval '23 hours' AS is_day
  FROM gate_decisions, clock WHERE minute > clock.now - interval '1 day' AND minute <= clock.now GROUP BY clock.now
), medians AS (
  SELECT device, percentile_cont(0.5) WITHIN GROUP (ORDER BY minutes) AS median
  FROM device_hours, clock WHERE hour < date_trunc('hour', clock.now) GROUP BY device HAVING count(*) >= 20
), usual_messages AS (
  SELECT device, percentile_cont(0.5) WITHIN GROUP (ORDER BY messages) AS median
  FROM device_messages, clock WHERE hour < date_trunc('hour', clock.now, 'UTC') GROUP BY device HAVING count(*) >= 20
), messages AS (
  SELECT device, messages FROM device_messages, clock WHERE hour = date_trunc('hour', clock.now, 'UTC')
), facts AS (
  (SELECT 'login_spread' AS rule, login AS subject, count(*) || ' addresses within an hour' AS detail
   FROM pairs GROUP BY login HAVING count(*) >= $2::int ORDER BY count(*) DESC LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  (SELECT 'address_crowd', CASE WHEN family(network) = 4 THEN host(network) ELSE network::text END,
     count(*) || ' logins within an hour'
   FROM pairs GROUP BY network HAVING count(*) >= $3::int ORDER BY count(*) DESC LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  (SELECT 'device_rate', h.device, h.minutes || ' busy minutes of an hour, usually ' || m.median
   FROM device_hours h JOIN medians m USING (device) JOIN devices d ON d.name = h.device, clock
   WHERE h.hour = date_trunc('hour', clock.now) AND h.minutes >= 10
     AND m.median <= ${MOST_USUAL_MINUTES} AND h.minutes > least($4::float8 * m.median, ${ALWAYS_BUSY_MINUTES})
     AND NOT EXISTS (SELECT FROM usual_messages u JOIN messages n USING (device)
                     WHERE u.device = h.device AND n.messages >= h.minutes)
   LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  (SELECT 'device_rate', n.device, n.messages || ' messages of an hour, usually ' || u.median
   FROM messages n JOIN usual_messages u USING (device) JOIN devices d ON d.name = n.device
   WHERE n.messages >= ${FEWEST_MESSAGES} AND n.messages > $4::float8 * u.median
   LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  SELECT 'refusals_rise', 'gates', lately || ' in ten minutes, usually ' || round(before)
  FROM refused WHERE is_day AND lately >= 100 AND lately > $5::float8 * before
  UNION ALL
  (SELECT 'gate_undecided', host, sum(undecided) || ' decisions within five minutes'
   FROM gate_decisions, clock WHERE minute > clock.now - interval '5 minutes' AND minute <= clock.now
   GROUP BY host HAVING sum(undecided) > 0 LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  (SELECT 'device_silent', device, 'last login ' || to_char(max(last_login) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
   FROM device_logins JOIN devices d ON d.name = device, clock WHERE d.until > clock.now GROUP BY device, clock.now
   HAVING max(last_login) < clock.now - make_interval(days => $6::int) LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  (SELECT 'device_end', name, 'ends ' || to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
   FROM devices, clock WHERE until > clock.now AND until < clock.now + make_interval(days => $7::int) LIMIT ${MOST_OF_A_RULE})
  UNION ALL
  SELECT * FROM unnest($8::text[], $9::text[], $10::text[])
), found AS (
  SELECT rule, left(subject, 255) AS subject, left(min(detail), 500) AS detail
  FROM facts WHERE rule <> ALL ($11::text[]) GROUP BY 1, 2
), lasting AS (
  UPDATE alarm a SET seen = clock.now, detail = found.detail
  FROM found, clock WHERE a.until IS NULL AND a.rule = found.rule AND a.subject = found.subject
), ended AS (
  UPDATE alarm a SET until = clock.now
  FROM clock
  WHERE a.until IS NULL AND a.seen < clock.now - interval '${QUIET_MINUTES} minutes'
    AND NOT EXISTS (SELECT FROM found WHERE found.rule = a.rule AND found.subject = a.subject)
)
INSERT INTO alarm (rule, subject, detail, since, seen)
SELECT rule, subject, detail, now, now FROM found, clock
ON CONFLICT (rule, subject) WHERE until IS NULL DO NOTHING`,
}

/** $1 now or null. Starts that this process reports. */
const TAKE_STARTS: Statement<Alarm> = {
  row: alarmRow,
  text: `
UPDATE alarm SET start_reported = coalesce($1::timestamptz, now())
WHERE id IN (SELECT id FROM alarm WHERE start_reported IS NULL ORDER BY id LIMIT ${MOST_CLAIMED} FOR UPDATE SKIP LOCKED)
RETURNING id, rule, subject, detail, since, until`,
}
const TAKE_ENDS: Statement<Alarm> = {
  row: alarmRow,
  text: `
UPDATE alarm SET end_reported = coalesce($1::timestamptz, now())
WHERE id IN (
  SELECT id FROM alarm WHERE until IS NOT NULL AND start_reported IS NOT NULL AND end_reported IS NULL
  ORDER BY id LIMIT ${MOST_CLAIMED} FOR UPDATE SKIP LOCKED)
RETURNING id, rule, subject, detail, since, until`,
}
const GIVE_BACK_START: Statement<unknown> = {
  row: ignored,
  text: 'UPDATE alarm SET start_reported = NULL WHERE id = $1::bigint',
}
const GIVE_BACK_END: Statement<unknown> = {
  row: ignored,
  text: 'UPDATE alarm SET end_reported = NULL WHERE id = $1::bigint',
}

/** $1 days: alarms that last, and those that ended since. */
const LIST: Statement<Alarm> = {
  row: alarmRow,
  text: `
SELECT id, rule, subject, detail, since, until FROM alarm
WHERE until IS NULL OR until > now() - make_interval(days => $1::int)
ORDER BY until IS NOT NULL, since DESC LIMIT 1000`,
}

const COUNT_OPEN: Statement<{ rule: string; count: number }> = {
  row: v.object({ rule: v.string(), count: int8 }),
  text: 'SELECT rule, count(*) AS count FROM alarm WHERE until IS NULL GROUP BY rule',
}

const FORGET: Statement<unknown> = {
  row: ignored,
  text: "DELETE FROM alarm WHERE until < coalesce($1::timestamptz, now()) - interval '90 days'",
}

/** $1 now or null. The median is that of 30 days. */
const FORGET_MESSAGES: Statement<unknown> = {
  row: ignored,
  text: "DELETE FROM device_messages WHERE hour < coalesce($1::timestamptz, now()) - interval '30 days'",
}

/** A start or an end to report. */
export type AlarmChange = { readonly state: 'start' | 'end'; readonly alarm: Alarm }

/** The alarms of the site, on a database opened with the role `pop3authd`. */
export class Alarms {
  readonly #database: Pick<Database, 'query' | 'transaction'>

  constructor(database: Pick<Database, 'query' | 'transaction'>) {
    this.#database = database
  }

  /**
   * Applies every rule once: opens the alarms that a rule finds, and ends those that no rule has
   * found for QUIET_MINUTES. Does nothing while another host applies the rules. `now` null: the
   * database's time.
   */
  async look(
    limits: AlarmLimits,
    {
      facts = [],
      off = [],
      now = null,
    }: { facts?: readonly AlarmFact[]; off?: readonly string[]; now?: Date | null } = {},
  ): Promise<void> {
    await this.#database.transaction(async session => {
      const [lock] = (await session.query(LOCK, [])).rows
      if (lock?.locked !== true) return
      await session.query(REMEMBER_LOGINS, [now])
      await session.query(REMEMBER_HOURS, [now])
      await session.query(LOOK, [
        now,
        limits.loginAddresses,
        limits.addressLogins,
        limits.deviceFactor,
        limits.refusalFactor,
        limits.silentDays,
        limits.endDays,
        arrayLiteral(facts.map(({ rule }) => rule)),
        arrayLiteral(facts.map(({ subject }) => subject)),
        arrayLiteral(facts.map(({ detail }) => detail)),
        arrayLiteral(off),
      ])
      await session.query(FORGET, [now])
      await session.query(FORGET_MESSAGES, [now])
    })
  }

  /** Takes the starts and ends without a report. This process reports each, or gives it back. */
  async take(now: Date | null = null): Promise<readonly AlarmChange[]> {
    const starts = (await this.#database.query(TAKE_STARTS, [now])).rows
    const ends = await this.#database.query(TAKE_ENDS, [now]).then(
      ({ rows }) => rows,
      (error: unknown) => {
        // The starts are claimed, so the caller must get them. A later call claims the ends.
        if (starts.length === 0) throw error
        return []
      },
    )
    return [
      ...starts.map(alarm => ({ state: 'start', alarm }) as const),
      ...ends.map(alarm => ({ state: 'end', alarm }) as const),
    ]
  }

  /** The report failed, so the next call claims the start or end again. */
  async giveBack({ state, alarm }: AlarmChange): Promise<void> {
    await this.#database.query(state === 'start' ? GIVE_BACK_START : GIVE_BACK_END, [alarm.id])
  }

  /** Active alarms first, then those that ended within the last days. */
  async list(days: number): Promise<readonly Alarm[]> {
    return (await this.#database.query(LIST, [days])).rows
  }

  /** The number of active alarms, by rule. */
  async countOpen(): Promise<ReadonlyMap<string, number>> {
    return new Map((await this.#database.query(COUNT_OPEN, [])).rows.map(({ rule, count }) => [rule, count]))
  }
}
