import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { createLog } from '../../../src/base/log.ts'
import { Announcer, type Attempt } from '../../../src/popup/monitor/announcer.ts'
import { AuthdConnection } from '../../../src/popup/monitor/authd-connection.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { loginOctets, loginText, sessionId } from '../../../src/wire/login-event.ts'
import { AuthdDouble } from '../../harness/authd/authd-double.ts'
import { eventually } from '../../harness/eventually.ts'
import { withFreeDescriptors } from '../../harness/hosts/scarce-descriptors.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const ip = parseIpAddress('192.0.2.7')
if (ip === undefined) throw new TypeError('an address')

/** A login; `n` distinguishes the logins. */
const attempt = (n: number, user = 'ann'): Attempt => ({
  id: sessionId(7, n),
  ip,
  user: loginText(loginOctets(user)),
  method: 'pass',
  tls: false,
})

let directory = temporaryDirectory()
let lines: string[] = []
let now = 0
let authd: AuthdDouble | undefined
let connection: AuthdConnection | undefined
const log = createLog('popup', { level: 'debug', write: line => lines.push(line) })
const path = () => `${directory.path}/authd.sock`
const connect = (grantWait: number, keepFor = 1_800_000): AuthdConnection => {
  connection = new AuthdConnection({ path: path(), grantWait, keepFor }, log, () => now)
  return connection
}
const logged = (text: string) => eventually(text, () => lines.some(line => line.includes(text)))

beforeEach(() => {
  directory = temporaryDirectory()
  lines = []
  now = 0
})
afterEach(async () => {
  await connection?.close()
  await authd?.stop()
  connection = undefined
  authd = undefined
  directory.remove()
})

describe('AuthdConnection', () => {
  test('several events are in flight at once, and answers come in any order', async () => {
    authd = await AuthdDouble.listen(path())
    authd.answer = () => undefined
    const announcer = connect(60_000)
    const answers = [1, 2].map(n => announcer.announce({ ...attempt(n), daemon: 'popup' }))
    await eventually('both events have arrived', () => authd?.events.length === 2)
    expect(announcer.unanswered).toBe(2)
    authd.say({ verdict: 'refused', id: attempt(2).id, reason: 'loopback' })
    authd.say({ verdict: 'committed', id: attempt(1).id, until: 2_000_000_000 })
    expect(await Promise.all(answers)).toEqual([
      { verdict: 'committed', id: attempt(1).id, until: 2_000_000_000 },
      { verdict: 'refused', id: attempt(2).id, reason: 'loopback' },
    ])
    expect(announcer.unanswered).toBe(0)
  })

  test('a login after a reload waits for the time in the new settings', async () => {
    authd = await AuthdDouble.listen(path())
    authd.answer = () => undefined
    const announcer = connect(600_000)
    announcer.use({ grantWait: 10, keepFor: 1_800_000 })
    expect(await announcer.announce({ ...attempt(1), daemon: 'popup' })).toMatchObject({ verdict: 'queued' })
  })

  test('a login waits no longer than its limit, and its event is delivered when authd is available again', async () => {
    const announcer = connect(10)
    expect(await announcer.announce({ ...attempt(1, 'early'), daemon: 'popup' })).toMatchObject({ verdict: 'queued' })
    await logged('event=authd_unreachable')
    authd = await AuthdDouble.listen(path())
    expect(await authd.event('early')).toMatchObject({ id: attempt(1).id })
    await eventually('the event is answered', () => announcer.unanswered === 0)
    await logged('event=authd_reconnected')
    expect(lines.filter(line => line.includes('authd_unreachable'))).toHaveLength(1)
  })

  test('an event without an answer is sent again on the next connection', async () => {
    authd = await AuthdDouble.listen(path())
    authd.answer = () => undefined
    const answer = connect(60_000).announce({ ...attempt(1), daemon: 'popup' })
    await authd.event('ann')
    await authd.stop()
    authd = await AuthdDouble.listen(path())
    expect(await answer).toMatchObject({ verdict: 'committed' })
  })

  test('an event that is sent again contains the age of the login, to a second', async () => {
    authd = await AuthdDouble.listen(path())
    authd.answer = () => undefined
    const answer = connect(60_000).announce({ ...attempt(1), daemon: 'popup' })
    expect(await authd.event('ann')).not.toHaveProperty('age')
    await authd.stop()
    now = 599_001
    authd = await AuthdDouble.listen(path())
    expect(await authd.event('ann')).toMatchObject({ age: 600 })
    expect(await answer).toMatchObject({ verdict: 'committed' })
  })

  test('an event that is not delivered in time is lost, with a log line', async () => {
    const announcer = connect(0, 1000)
    await announcer.announce({ ...attempt(1, 'old'), daemon: 'popup' })
    now = 1001
    await announcer.announce({ ...attempt(2, 'new'), daemon: 'popup' })
    expect(announcer.unanswered).toBe(1)
    await logged('event=login_event_dropped')
    expect(lines.find(line => line.includes('login_event_dropped'))).toContain('user=old')
  })

  test('an answer to an unknown event is logged, and later logins are answered', async () => {
    authd = await AuthdDouble.listen(path())
    const announcer = connect(60_000)
    await announcer.announce({ ...attempt(1), daemon: 'popup' })
    authd.say({ verdict: 'queued', id: attempt(9).id })
    await logged('event=authd_answer_unknown')
    expect(await announcer.announce({ ...attempt(2), daemon: 'popup' })).toMatchObject({ verdict: 'committed' })
  })
})

describe('Announcer', () => {
  test('the log line of a login has the result of the grant, and the time for which +OK waited for it', async () => {
    authd = await AuthdDouble.listen(path())
    let now = 5000
    const announcer = new Announcer(
      connect(60_000),
      () => undefined,
      false,
      log,
      () => now,
    )
    const committed = announcer.login(attempt(1, 'ann'))
    now += 812
    await committed
    expect(lines.at(-1)).toMatch(/event=login_accepted .*user=ann .*grant=committed grant_ms=812 until=2000000000/)
    authd.answer = ({ id }) => ({ verdict: 'refused', id, reason: 'loopback' })
    await announcer.login(attempt(2, 'bob'))
    expect(lines.at(-1)).toMatch(/user=bob .*grant=refused reason=loopback/)
    await announcer.close()
  })

  test('a login that can never be granted is logged and not announced', async () => {
    authd = await AuthdDouble.listen(path())
    const announcer = new Announcer(connect(60_000), () => 'proxy', false, log)
    await announcer.login(attempt(1, 'ann'))
    expect(lines.at(-1)).toMatch(/event=login_accepted .*grant=refused reason=proxy/)
    announcer.useRefusal(() => undefined)
    await announcer.login(attempt(2, 'bob'))
    expect(authd.events.map(({ user }) => user)).toEqual(['bob'])
    await announcer.close()
  })

  test('a failure has its reason; an unknown address is logged as unknown', () => {
    const announcer = new Announcer(undefined, () => undefined, false, log)
    announcer.failure({ ...attempt(1), ip: undefined }, 'badauth', 'wrong password')
    expect(lines.at(-1)).toMatch(/event=login_failed .*ip=unknown user=ann .*reason=badauth detail="wrong password"/)
    announcer.preambleFailure(ip, 'badpass')
    expect(lines.at(-1)).toMatch(/event=preamble_refused ip=192\.0\.2\.7 reason=badpass/)
  })
})

test('a failed login is announced also while no descriptor is free for logger', async () => {
  const announcer = new Announcer(undefined, () => undefined, true, log)
  withFreeDescriptors(0, () => announcer.failure(attempt(1), 'badauth'))
  await eventually('the end of logger is logged', () => lines.some(line => /event=logger_ended .*EMFILE/.test(line)))
  await announcer.close()
})
