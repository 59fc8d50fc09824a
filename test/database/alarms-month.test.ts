import { afterAll, beforeAll, expect, test } from 'vitest'
import { type AlarmLimits, Alarms } from '../../src/grants/alarms.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

const LIMITS: AlarmLimits = {
  loginAddresses: 10,
  addressLogins: 20,
  deviceFactor: 5,
  refusalFactor: 5,
  silentDays: 7,
  endDays: 14,
}
const DAYS = 28
const HOUR = 3_600_000
const DAY = 24 * HOUR
const START = Date.UTC(2026, 1, 2)
const THEFT_DAY = 17
/** The rules run every minute of these hours of a working day, with two waves of refusals. */
const EVERY_MINUTE = [10 * DAY + 8 * HOUR, 10 * DAY + 14 * HOUR] as const
const HACKED_AT = new Date(START + THEFT_DAY * DAY + 9 * HOUR)
const HACKED = 'user777@example.org'
const at = (time: number | Date): string => `'${new Date(time).toISOString()}'::timestamptz`

let database: TestDatabase
let alarms: Alarms
beforeAll(async () => {
  database = await createTestDatabase()
  alarms = new Alarms(database.open('pop3authd'))
  for (let day = 0; day < DAYS; day += 1) await database.owner.script(logins(day) + devices(day) + refusals(day))
  await database.owner.script(`
    ${insertLogins(`
      SELECT '${HACKED}', '203.0.113.0'::inet + n, ${at(HACKED_AT)} + n * interval '20 seconds'
      FROM generate_series(1, 130) AS n`)}
    INSERT INTO devices (name, senders, networks, recipient_domains, messages_per_hour, messages_per_day, recipients_per_hour,
      recipients_per_day, line_endings, until, owner, note)
    SELECT 'printer' || n, '{}', '{}', '{}', 0, 0, 0, 0, 'strict', 'infinity', '', '' FROM generate_series(1, 8) AS n;
    INSERT INTO device_logins (login, device)
    SELECT 'scan' || n || '@example.org', 'printer' || n FROM generate_series(1, 8) AS n;
    -- In production the partition of a day bounds the search.
    CREATE INDEX month_at ON login_event_default (at);
    ANALYZE login_event, usage_event, gate_decisions;`)
}, 120_000)
afterAll(() => database.remove())

/** `rows`: a query of user, address and time. */
const insertLogins = (rows: string): string => `
  INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
  SELECT at, ip, ip, 'popup', 'pass', true, username, '', at + interval '30 minutes'
  FROM (${rows}) AS logins (username, ip, at);`

/**
 * The logins of a day, about 10,000. 3,000 people have one address at home, and a third of them
 * also has a phone with a new address several times a day. On working days 40 offices have 11 to 18
 * people, and sometimes a visitor. So an office is just below the limit of 20 logins. 30 people
 * roam, with 6 to 9 addresses within one hour.
 */
function logins(day: number): string {
  const from = at(START + day * DAY)
  const isWorkday = day % 7 < 5
  return `
    SELECT setseed(${day / 100});
    ${insertLogins(`
      SELECT 'user' || person || '@example.org',
        CASE WHEN person % 3 = 0 AND random() < 0.5
          THEN '10.0.0.0'::inet + person * 400 + (extract(epoch FROM at)::bigint / 10800 % 350)::int
          ELSE '172.16.0.0'::inet + person END,
        at
      FROM (
        SELECT 1 + floor(random() * 3000)::int AS person, ${from} + random() * interval '1 day' AS at
        FROM generate_series(1, ${isWorkday ? 6_000 : 9_000})) AS visits`)}
    ${insertLogins(`
      SELECT CASE person WHEN 0 THEN 'visitor' || office ELSE 'user' || office * 20 + person END || '@example.org',
        '198.51.100.0'::inet + office, ${from} + (hour + random()) * interval '1 hour'
      FROM generate_series(1, 40) AS office, generate_series(8, 15) AS hour, generate_series(0, 11 + office % 8) AS person
      WHERE ${isWorkday} AND random() < CASE person WHEN 0 THEN 0.05 ELSE 0.85 END`)}
    ${insertLogins(`
      SELECT 'roams' || person || '@example.org', '10.200.0.0'::inet + person * 1000 + ${day} * 10 + n,
        ${from} + (9 + (person + ${day}) % 8 + random()) * interval '1 hour'
      FROM generate_series(1, 30) AS person, generate_series(1, 9) AS n WHERE n <= 6 + (person + ${day}) % 4`)}`
}

/**
 * From 7 to 19 o'clock eight printers log in every 25 minutes, and send mail in 3 to 5 minutes of
 * an hour. Each second day a printer sends about four times as much for an hour. One of them is
 * switched off for 5 days.
 */
function devices(day: number): string {
  const from = at(START + day * DAY)
  const isOff = day >= 10 && day < 15
  return `
    ${insertLogins(`
      SELECT 'scan' || n || '@example.org', '192.0.2.0'::inet + n, ${from} + interval '410 minutes' + k * interval '25 minutes'
      FROM generate_series(1, ${isOff ? 7 : 8}) AS n, generate_series(0, 29) AS k`)}
    INSERT INTO usage_event (at, ip, service)
    SELECT ${from} + hour * interval '1 hour' + k * interval '1 hour' / busy + random() * interval '59 seconds',
      '192.0.2.0'::inet + n, 'gate'
    FROM (
      SELECT n, hour, CASE WHEN hour = 10 AND (n + ${day}) % 2 = 0 THEN 16 ELSE 3 END + floor(random() * 3)::int AS busy
      FROM generate_series(1, ${isOff ? 7 : 8}) AS n, generate_series(7, 18) AS hour) AS hours,
      generate_series(0, 17) AS k
    WHERE k < busy;`
}

/** Refused clients of each minute, with four waves a day of three times as many. */
function refusals(day: number): string {
  return `
    INSERT INTO gate_decisions (minute, host, service, relayed, refused, undecided, never)
    SELECT ${at(START + day * DAY)} + n * interval '1 minute', 'mx', 'gate', floor(random() * 20)::int,
      floor((0.5 + random()) * CASE WHEN n / 60 IN (9, 12, 15, 18) AND n % 60 >= 30 THEN 60
        WHEN n / 60 BETWEEN 7 AND 18 THEN 20 ELSE 6 END)::int, 0, floor(random() * 5)::int
    FROM generate_series(0, 1439) AS n;`
}

type Alarm = Awaited<ReturnType<Alarms['list']>>[number]

/**
 * Runs the rules at the end of each hour, and in the minutes for which `isOften` is true every
 * minute, as in production. Minutes are those of the month.
 */
async function found(
  limits: AlarmLimits,
  [from, to]: readonly [number, number],
  isOften: (minute: number) => boolean = () => false,
): Promise<readonly Alarm[]> {
  await database.owner.script('TRUNCATE alarm, device_hours')
  for (let minute = from * 1440; minute < to * 1440; minute += 1)
    if (minute % 60 === 59 || isOften(minute)) await alarms.look(limits, { now: new Date(START + minute * 60_000) })
  return alarms.list(36_500)
}

const textOf = (all: readonly Alarm[]): string =>
  all.map(({ rule, subject, detail }) => `${rule} ${subject}: ${detail}`).join('\n')

test('with lower limits each rule has more than three false alarms within three days of the month', async () => {
  const lower = { ...LIMITS, loginAddresses: 9, addressLogins: 17, deviceFactor: 3, refusalFactor: 3 }
  const all = await found(lower, [7, 10])
  for (const rule of ['login_spread', 'address_crowd', 'device_rate', 'refusals_rise'])
    expect(all.filter(alarm => alarm.rule === rule).length, `${rule} in\n${textOf(all)}`).toBeGreaterThan(3)
}, 120_000)

test('a month with 10,000 logins a day: the stolen account is found within five minutes, with few other alarms', async () => {
  const theft = (HACKED_AT.getTime() - START) / 60_000
  const [first, last] = EVERY_MINUTE
  const isOften = (minute: number): boolean =>
    (minute * 60_000 >= first && minute * 60_000 < last) || Math.abs(minute - theft) < 30
  const all = await found(LIMITS, [0, DAYS], isOften)
  const hacked = all.filter(({ subject }) => subject === HACKED)
  expect(hacked.map(({ rule }) => rule)).toEqual(['login_spread'])
  expect((hacked[0]?.since.getTime() ?? Infinity) - HACKED_AT.getTime()).toBeLessThanOrEqual(5 * 60_000)
  const others = all.filter(({ subject }) => subject !== HACKED)
  expect(others.length, textOf(others)).toBeLessThanOrEqual(3)
}, 900_000)
