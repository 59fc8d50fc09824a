/**
 * The statements of programs of schema 18 that name a table, a column or a view with a later name,
 * as those programs send them.
 */

// authd. $1 times, $2 addresses, $3 services, $4 host.
export const RECORD_USES = `
INSERT INTO relay_use (at, ip, door, host)
SELECT least(coalesce(t.at, now()), now()), t.ip, t.door, $4::text
FROM unnest($1::timestamptz[], $2::inet[], $3::text[]) AS t(at, ip, door)`
export const RECORD_TALLIES = `
WITH counted AS (
  INSERT INTO gate_tally AS g (minute, host, door, relayed, refused, undecided, never)
  SELECT date_trunc('minute', least(t.at, coalesce($10::timestamptz, now()))), $1::text, t.door,
         sum(t.relayed), sum(t.refused), sum(t.undecided), sum(t.never)
  FROM unnest($2::timestamptz[], $3::text[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bigint[])
    AS t(at, door, relayed, refused, undecided, never)
  GROUP BY 1, 3 ORDER BY 1, 3
  ON CONFLICT (minute, host, door) DO UPDATE SET (relayed, refused, undecided, never) =
    (g.relayed + excluded.relayed, g.refused + excluded.refused, g.undecided + excluded.undecided, g.never + excluded.never)
)
INSERT INTO gate_refused AS r (host, door, at, addresses)
SELECT $1::text, t.door, coalesce($10::timestamptz, now()), array_agg(t.ip)
FROM unnest($8::text[], $9::inet[]) AS t(door, ip) GROUP BY t.door ORDER BY t.door
ON CONFLICT (host, door) DO UPDATE SET (at, addresses) = (excluded.at, excluded.addresses)`
// The alarms.
export const REMEMBER_HOURS = `
WITH used AS (
  SELECT l.device, u.at
  FROM relay_use u CROSS JOIN LATERAL (
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
ON CONFLICT (device, hour) DO UPDATE SET minutes = excluded.minutes WHERE h.minutes <> excluded.minutes`
export const LOOK = `
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
  FROM gate_tally, clock WHERE minute > clock.now - interval '1 day' AND minute <= clock.now GROUP BY clock.now
), medians AS (
  SELECT device, percentile_cont(0.5) WITHIN GROUP (ORDER BY minutes) AS median
  FROM device_hours, clock WHERE hour < date_trunc('hour', clock.now) GROUP BY device HAVING count(*) >= 20
), facts AS (
  (SELECT 'login_spread' AS rule, login AS subject, count(*) || ' addresses within an hour' AS detail
   FROM pairs GROUP BY login HAVING count(*) >= $2::int ORDER BY count(*) DESC LIMIT 100)
  UNION ALL
  (SELECT 'address_crowd', CASE WHEN family(network) = 4 THEN host(network) ELSE network::text END,
     count(*) || ' logins within an hour'
   FROM pairs GROUP BY network HAVING count(*) >= $3::int ORDER BY count(*) DESC LIMIT 100)
  UNION ALL
  (SELECT 'device_rate', h.device, h.minutes || ' busy minutes of an hour, usually ' || m.median
   FROM device_hours h JOIN medians m USING (device) JOIN devices d ON d.name = h.device, clock
   WHERE h.hour = date_trunc('hour', clock.now) AND h.minutes >= 10 AND h.minutes > $4::float8 * m.median
   LIMIT 100)
  UNION ALL
  SELECT 'refusals_rise', 'gates', lately || ' in ten minutes, usually ' || round(before)
  FROM refused WHERE is_day AND lately >= 100 AND lately > $5::float8 * before
  UNION ALL
  (SELECT 'gate_undecided', host, sum(undecided) || ' decisions within five minutes'
   FROM gate_tally, clock WHERE minute > clock.now - interval '5 minutes' AND minute <= clock.now
   GROUP BY host HAVING sum(undecided) > 0 LIMIT 100)
  UNION ALL
  (SELECT 'device_silent', device, 'last login ' || to_char(max(last_login) AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
   FROM device_logins, clock GROUP BY device, clock.now
   HAVING max(last_login) < clock.now - make_interval(days => $6::int) LIMIT 100)
  UNION ALL
  (SELECT 'device_end', name, 'ends ' || to_char(until AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI "UTC"')
   FROM devices, clock WHERE until > clock.now AND until < clock.now + make_interval(days => $7::int) LIMIT 100)
  UNION ALL
  SELECT * FROM unnest($8::text[], $9::text[], $10::text[])
), found AS (
  SELECT rule, left(subject, 255) AS subject, left(min(detail), 500) AS detail
  FROM facts WHERE rule <> ALL ($11::text[]) GROUP BY 1, 2
), lasting AS (
  UPDATE alarms a SET seen = clock.now, detail = found.detail
  FROM found, clock WHERE a.until IS NULL AND a.rule = found.rule AND a.subject = found.subject
), ended AS (
  UPDATE alarms a SET until = clock.now
  FROM clock
  WHERE a.until IS NULL AND a.seen < clock.now - interval '30 minutes'
    AND NOT EXISTS (SELECT FROM found WHERE found.rule = a.rule AND found.subject = a.subject)
)
INSERT INTO alarms (rule, subject, detail, since, seen)
SELECT rule, subject, detail, now, now FROM found, clock
ON CONFLICT (rule, subject) WHERE until IS NULL DO NOTHING`
export const TAKE_STARTS = `
UPDATE alarms SET told_start = coalesce($1::timestamptz, now())
WHERE id IN (SELECT id FROM alarms WHERE told_start IS NULL ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED)
RETURNING id, rule, subject, detail, since, until`
export const TAKE_ENDS = `
UPDATE alarms SET told_end = coalesce($1::timestamptz, now())
WHERE id IN (
  SELECT id FROM alarms WHERE until IS NOT NULL AND told_start IS NOT NULL AND told_end IS NULL
  ORDER BY id LIMIT 20 FOR UPDATE SKIP LOCKED)
RETURNING id, rule, subject, detail, since, until`
export const GIVE_BACK_START = 'UPDATE alarms SET told_start = NULL WHERE id = $1::bigint'
export const GIVE_BACK_END = 'UPDATE alarms SET told_end = NULL WHERE id = $1::bigint'
export const LIST = `
SELECT id, rule, subject, detail, since, until FROM alarms
WHERE until IS NULL OR until > now() - make_interval(days => $1::int)
ORDER BY until IS NOT NULL, since DESC LIMIT 1000`
export const COUNT_OPEN = 'SELECT rule, count(*) AS count FROM alarms WHERE until IS NULL GROUP BY rule'
export const FORGET = "DELETE FROM alarms WHERE until < coalesce($1::timestamptz, now()) - interval '90 days'"
// The commands.
export const RELAYS = `
SELECT date_trunc('milliseconds', at) AS at, 'relay' AS kind, host(ip) AS ip, door AS detail, host
FROM relay_use WHERE at > $1 AND at <= now() - interval '4 seconds'
ORDER BY at LIMIT 1000`
export const REFUSED = `
SELECT date_trunc('milliseconds', at) AS at, 'closed' AS kind, host(ip) AS ip, door AS detail, host
FROM gate_refused CROSS JOIN unnest(addresses) AS ip WHERE at > $1
ORDER BY at LIMIT 1000`
export const TALLIES = `
SELECT minute AS at, host, door AS service, relayed, refused, undecided, never
FROM gate_tally WHERE minute > $1 AND minute <= now() - interval '65 seconds'
ORDER BY minute, host, door LIMIT 1000`
export const REPORT = `
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
SELECT logins.login, d.device, logins.last_login AS "lastLogin", logins.logins, logins.addresses, logins.last_address AS "lastAddress",
       logins.tls_logins AS "tlsLogins",
       logins.daemons, logins.methods, uses.last_relay AS "lastRelay", coalesce(uses.relays, 0) AS relays
FROM logins LEFT JOIN uses USING (login) LEFT JOIN device_logins d USING (login)
ORDER BY uses.last_relay DESC NULLS LAST, logins.last_login DESC, logins.login`
export const LAST_RELAY =
  'SELECT at, door AS service, host FROM relay_use WHERE ip = $1::inet AND at <= $2 ORDER BY at DESC LIMIT 1'
// The status page.
export const TOTALS = `
SELECT clock_timestamp() AS now, (SELECT count(*) FROM status_grants) AS grants,
  allowances, blocks, (SELECT max(v) FROM schema_version) AS schema
FROM status_decrees`
export const EVENTS = `
SELECT at, kind, host(ip) AS ip, daemon, method, tls, login, reason FROM status_events
WHERE at > now() - make_interval(secs => $1::float8) ORDER BY at DESC LIMIT $2::bigint`
export const LAST_HEARD = `
SELECT daemon, host, max(at) AS at FROM status_events
WHERE at > now() - make_interval(secs => $1::float8) GROUP BY daemon, host ORDER BY daemon, host LIMIT $2::bigint`
export const COUNTS = `
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
  FROM status_gate WHERE minute >= $1::timestamptz AND minute < $2::timestamptz GROUP BY 1
) AS parts
GROUP BY start ORDER BY start`
export const SERVICES = `
SELECT door AS service, sum(relayed)::bigint AS relayed, sum(closed)::bigint AS closed, sum(undecided)::bigint AS undecided
FROM (
  SELECT daemon AS door, count(*) AS relayed, 0 AS closed, 0 AS undecided FROM status_events
  WHERE kind = 'relay' AND at > now() - make_interval(secs => $1::float8) GROUP BY 1
  UNION ALL
  SELECT door, 0, sum(refused + undecided + never), sum(undecided) FROM status_gate
  WHERE minute > now() - make_interval(secs => $1::float8) GROUP BY 1
) AS parts
GROUP BY door ORDER BY 2 DESC, 3 DESC, 1`
