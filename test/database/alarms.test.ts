import * as v from 'valibot'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { timestamptz } from '../../src/database/statement.ts'
import { ALARM_RULES, type AlarmLimits, Alarms } from '../../src/grants/alarms.ts'
import { createGrantWriter } from '../../src/grants/grant-writer.ts'
import { grantPolicy } from '../harness/postgres/grant-policy.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'

let database: TestDatabase
let alarms: Alarms
beforeAll(async () => {
  database = await createTestDatabase()
  alarms = new Alarms(database.open('pop3authd'))
})
afterAll(() => database.remove())
beforeEach(() =>
  database.owner.script(
    'TRUNCATE alarm, login_event, usage_event, gate_decisions, devices, device_logins, device_hours, device_messages',
  ),
)

const LIMITS: AlarmLimits = {
  loginAddresses: 10,
  addressLogins: 20,
  deviceFactor: 5,
  refusalFactor: 5,
  silentDays: 7,
  endDays: 14,
}
const DAY = 86_400_000
const START = Date.UTC(2026, 1, 1)
const later = (ms: number): Date => new Date(START + ms)
const minutes = (count: number): Date => later(count * 60_000)
const sql = (text: string): Promise<unknown> => database.owner.script(text)
const at = (time: Date): string => `'${time.toISOString()}'`

const login = (user: string, ip: string, time: Date): string =>
  `INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
   VALUES (${at(time)}, '${ip}', '${ip}', 'popup', 'pass', true, '${user}', '', ${at(new Date(time.getTime() + 1_800_000))});`
const use = (minute: number): string =>
  `INSERT INTO usage_event (at, ip, service) VALUES (${at(minutes(minute))}, '192.0.2.7', 'gate');`
const device = (name: string, until = "'infinity'"): string =>
  `INSERT INTO devices (name, senders, networks, recipient_domains, messages_per_hour, messages_per_day, recipients_per_hour,
     recipients_per_day, line_endings, until, owner, note)
   VALUES ('${name}', '{}', '{}', '{}', 0, 0, 0, 0, 'strict', ${until}, '', '');`
const shown = async () =>
  (await alarms.list(3650)).map(({ rule, subject, until }) => `${rule} ${subject}${until === null ? '' : ' over'}`)

describe('rules', () => {
  test('many addresses of one login, and many logins of one address', async () => {
    const spread = Array.from({ length: 10 }, (_, n) => login('Ann@example.org', `192.0.2.${n + 1}`, minutes(n)))
    const crowd = Array.from({ length: 20 }, (_, n) => login(`user${n}`, '2001:db8::7', minutes(n)))
    await sql([...spread.slice(1), ...crowd.slice(1)].join(''))
    await alarms.look(LIMITS, { now: minutes(30) })
    expect(await shown()).toEqual([])
    await sql(`${spread[0]}${crowd[0]}`)
    await alarms.look(LIMITS, { now: minutes(30) })
    expect((await shown()).sort()).toEqual(['address_crowd 2001:db8::7/128', 'login_spread ann@example.org'])
  })

  test('a device far above its own median', async () => {
    await sql(`${device('copier')}
      INSERT INTO device_logins (login, device) VALUES ('scan', 'copier');`)
    // Two minutes with mail per hour for 30 hours, then fifteen.
    for (let hour = 0; hour < 31; hour += 1) {
      const busy = hour < 30 ? [5, 20] : Array.from({ length: 15 }, (_, n) => n + 1)
      await sql(
        login('scan', '192.0.2.7', minutes(hour * 60)) +
          login('scan', '192.0.2.7', minutes(hour * 60 + 15)) +
          busy.map(minute => use(hour * 60 + minute)).join(''),
      )
      await alarms.look(LIMITS, { now: minutes(hour * 60 + 30) })
      expect(await shown()).toEqual(hour < 30 ? [] : ['device_rate copier'])
    }
  })

  test.each([
    [2, 10, 11],
    [8, 40, 41],
    [11, 55, 56],
    [12, 55, 56],
    [30, 55, 56],
    [45, 55, 56],
  ])('a device of %i busy minutes an hour: not %i, but %i are an alarm', async (usual, quiet, busy) => {
    await sql(`${device('copier')}
      INSERT INTO device_logins (login, device) VALUES ('scan', 'copier');
      INSERT INTO device_hours (device, hour, minutes)
      SELECT 'copier', ${at(minutes(0))}::timestamptz + n * interval '1 hour', ${usual} FROM generate_series(0, 29) AS n;`)
    const used = async (hour: number, count: number): Promise<readonly string[]> => {
      const uses = Array.from({ length: count }, (_, n) => use(hour * 60 + n))
      const logins = [0, 20, 40].map(minute => login('scan', '192.0.2.7', minutes(hour * 60 + minute)))
      await sql([...logins, ...uses].join(''))
      await alarms.look(LIMITS, { now: minutes(hour * 60 + 59) })
      return shown()
    }
    expect(await used(30, quiet)).toEqual([])
    expect(await used(31, busy)).toEqual(['device_rate copier'])
  })

  test.each([
    [2, 10, 11],
    [20, 100, 101],
    [400, 2000, 2001],
  ])('a device of %i messages an hour: not %i, but %i are an alarm', async (usual, quiet, busy) => {
    await sql(`${device('copier')}
      INSERT INTO device_logins (login, device) VALUES ('scan', 'copier');
      INSERT INTO device_messages (device, hour, messages)
      SELECT 'copier', ${at(minutes(0))}::timestamptz + n * interval '1 hour', ${usual} FROM generate_series(0, 29) AS n;`)
    const sent = async (hour: number, count: number): Promise<readonly string[]> => {
      const writer = createGrantWriter(database.open('pop3authd'), grantPolicy())
      const seconds = minutes(hour * 60).getTime() / 1000
      await writer.recordDeviceMessages([
        { at: seconds, device: 'copier', count: count - 1 },
        { at: seconds + 3540, device: 'copier', count: 1 },
        { at: seconds, device: 'unknown', count: 5 },
      ])
      await alarms.look(LIMITS, { now: minutes(hour * 60 + 59) })
      return shown()
    }
    expect(await sent(30, quiet)).toEqual([])
    expect(await sent(31, busy)).toEqual(['device_rate copier'])
    expect((await alarms.list(3650))[0]?.detail).toBe(`${busy} messages of an hour, usually ${usual}`)
  })

  test('busy minutes are no alarm in an hour whose messages are counted, and are one where a gate counts none', async () => {
    const hours = 'generate_series(0, 29) AS n'
    const hour = `${at(minutes(0))}::timestamptz + n * interval '1 hour'`
    await sql(`${device('copier')}
      INSERT INTO device_messages SELECT 'copier', ${hour}, 20 FROM ${hours};
      INSERT INTO device_hours SELECT 'copier', ${hour}, 2 FROM ${hours};
      INSERT INTO device_messages VALUES ('copier', ${at(minutes(30 * 60))}, 30);
      INSERT INTO device_hours VALUES ('copier', ${at(minutes(30 * 60))}, 30);`)
    await alarms.look(LIMITS, { now: minutes(30 * 60 + 59) })
    expect(await shown()).toEqual([])
    await sql(`UPDATE device_messages SET messages = 3 WHERE hour = ${at(minutes(30 * 60))};`)
    await alarms.look(LIMITS, { now: minutes(30 * 60 + 59) })
    expect(await shown()).toEqual(['device_rate copier'])
  })

  test('messages of more than 30 days ago are forgotten', async () => {
    await sql(`INSERT INTO device_messages VALUES ('a', ${at(later(0))}, 1), ('a', ${at(later(2 * DAY))}, 1);`)
    await alarms.look(LIMITS, { now: later(31 * DAY) })
    const { rows } = await database.owner.query({
      text: 'SELECT hour FROM device_messages',
      row: v.object({ hour: timestamptz }),
    })
    expect(rows).toEqual([{ hour: later(2 * DAY) }])
  })

  test('a device that is nearly always busy has no alarm about its rate', async () => {
    await sql(`${device('copier')}
      INSERT INTO device_hours (device, hour, minutes)
      SELECT 'copier', ${at(minutes(0))}::timestamptz + n * interval '1 hour', CASE n WHEN 30 THEN 60 ELSE 50 END
      FROM generate_series(0, 30) AS n;`)
    await alarms.look(LIMITS, { now: minutes(30 * 60 + 59) })
    expect(await shown()).toEqual([])
  })

  test('a device without a login for a week, and a device that has ended', async () => {
    await sql(`${device('silent')} ${device('new')} ${device('ends', at(later(20 * DAY)))}
      INSERT INTO device_logins (login, device) VALUES ('silent', 'silent'), ('new', 'new'), ('ends', 'ends');`)
    await sql(login('silent', '192.0.2.7', later(0)))
    await alarms.look(LIMITS, { now: minutes(1) })
    await alarms.look(LIMITS, { now: later(6 * DAY - 60_000) })
    expect(await shown()).toEqual([])
    await alarms.look(LIMITS, { now: later(7 * DAY + 60_000) })
    expect((await shown()).sort()).toEqual(['device_end ends', 'device_silent silent'])
    // A login ends the first alarm, and the end of the device ends the second.
    await sql(login('silent', '192.0.2.7', later(20 * DAY)))
    await alarms.look(LIMITS, { now: later(20 * DAY + 60_000) })
    await alarms.look(LIMITS, { now: later(20 * DAY + 45 * 60_000) })
    expect((await shown()).sort()).toEqual(['device_end ends over', 'device_silent silent over'])
  })

  test('a device that has ended is not silent, and its alarm ends', async () => {
    await sql(`${device('over', at(later(3 * DAY)))} ${device('later', at(later(30 * DAY)))}
      INSERT INTO device_logins (login, device, last_login) VALUES
        ('over', 'over', ${at(later(0))}), ('later', 'later', ${at(later(0))});`)
    await alarms.look(LIMITS, { now: later(8 * DAY), off: ['device_end'] })
    expect(await shown()).toEqual(['device_silent later'])
    await alarms.look(LIMITS, { now: later(30 * DAY + 60_000), off: ['device_end'] })
    await alarms.look(LIMITS, { now: later(30 * DAY + 60_000 * 60), off: ['device_end'] })
    expect(await shown()).toEqual(['device_silent later over'])
  })

  test('more refusals than the day before, a gate without answers, and facts about a host', async () => {
    const tally = (minute: number, refused: number, undecided = 0): string =>
      `INSERT INTO gate_decisions VALUES (${at(minutes(minute))}, 'mx', 'gate', 0, ${refused}, ${undecided}, 0);`
    await sql(Array.from({ length: 1440 }, (_, minute) => tally(minute, 10)).join(''))
    await alarms.look(LIMITS, { now: minutes(1440) })
    expect(await shown()).toEqual([])
    await sql(Array.from({ length: 9 }, (_, minute) => tally(1441 + minute, 80, minute === 8 ? 2 : 0)).join(''))
    await alarms.look(LIMITS, {
      now: minutes(1450),
      facts: [{ rule: 'certificate_end', subject: 'mx *:995', detail: 'ends tomorrow' }],
      off: ['gate_undecided'],
    })
    expect((await shown()).sort()).toEqual(['certificate_end mx *:995', 'refusals_rise gates'])
    await alarms.look(LIMITS, { now: minutes(1450) })
    expect((await shown()).sort()).toEqual(['certificate_end mx *:995', 'gate_undecided mx', 'refusals_rise gates'])
  })
})

test('an alarm has one start and one end, is claimed once, and can be claimed again after it was released', async () => {
  const spread = (from: number) =>
    Array.from({ length: 10 }, (_, n) => login('ann', `192.0.2.${n + 1}`, minutes(from + n))).join('')
  await sql(spread(0))
  for (const minute of [10, 11, 59]) await alarms.look(LIMITS, { now: minutes(minute) })
  expect(await shown()).toEqual(['login_spread ann'])
  const [start, ...more] = await alarms.take()
  expect([start?.state, more]).toEqual(['start', []])
  expect(await alarms.take()).toEqual([])
  if (start !== undefined) await alarms.giveBack(start)
  expect(await alarms.take()).toMatchObject([{ state: 'start', alarm: { rule: 'login_spread', subject: 'ann' } }])
  // The rule is silent for half an hour at most, so this is the same alarm.
  await alarms.look(LIMITS, { now: minutes(85) })
  await sql(spread(86))
  await alarms.look(LIMITS, { now: minutes(96) })
  expect(await shown()).toEqual(['login_spread ann'])
  await alarms.look(LIMITS, { now: minutes(96 + 65) })
  expect(await shown()).toEqual(['login_spread ann over'])
  expect(await alarms.take()).toMatchObject([{ state: 'end', alarm: { subject: 'ann' } }])
  expect(await alarms.take()).toEqual([])
  expect(new Set(ALARM_RULES.map(({ name }) => name)).size).toBe(ALARM_RULES.length)
})
