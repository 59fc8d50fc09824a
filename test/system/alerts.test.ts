import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { Stack } from '../harness/stack.ts'
import { createTestDatabase, type TestDatabase } from '../harness/test-database.ts'

let stack: Stack
let database: TestDatabase
let mails: string
beforeAll(async () => {
  stack = new Stack()
  database = await createTestDatabase()
  mails = `${stack.directory}/mails`
  const sendmail = `${stack.directory}/sendmail`
  writeFileSync(sendmail, `#!/bin/sh\n{ echo "TO $*"; cat; } >> ${mails}\n`)
  chmodSync(sendmail, 0o755)
})
afterEach(() => stack.stopPrograms())
afterAll(async () => {
  await stack.stop()
  await database.remove()
})

const configure = (alerts: Readonly<Record<string, string | readonly string[]>>): void => {
  const { hosts, database: dbname, user, password } = database.connection('pop3authd')
  const [{ host, port } = { host: '', port: 5432 }] = hosts
  stack.configure({
    database: { dbhost: host, dbport: port, dbname, dbuser: user, dbpass: password?.reveal() ?? '' },
    alerts: { mail_to: ['noc@example.org'], sendmail: [`${stack.directory}/sendmail`], user: '', ...alerts },
    // No certificate is shown here.
    popup: { listen: [] },
  })
}
const alerts = (...words: string[]) => stack.run('auth-relay', ['alerts', ...words, '--config', stack.config])
const mailed = (): string => (existsSync(mails) ? readFileSync(mails, 'utf8') : '')

test('a stolen password is told by mail and closed, and the command lists it', async () => {
  configure({ close: ['login_spread'] })
  await database.owner.script(`
    INSERT INTO grants (ip, until, daemon, username) VALUES ('203.0.113.1', now() + interval '10 min', 'popup', 'ann');
    INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
    SELECT now() - n * interval '1 minute', ip, ip, 'popup', 'pass', true, 'ann', '', now()
    FROM (SELECT n, '203.0.113.0'::inet + n AS ip FROM generate_series(1, 12) AS n) AS thief`)
  const none = await alerts()
  expect([none.ending?.code, none.lines]).toEqual([0, ['There is no alarm.']])
  const running = stack.launch('auth-relay', { args: ['alerts', 'run', '--config', stack.config] })
  await running.waitForLine(/^alerts ready every=60s told_by=mail$/, 60_000)
  await eventually('a mail', () => mailed().includes('Subject: [auth-relay] ALARM: login_spread ann'))
  expect(mailed()).toContain('TO -- noc@example.org')
  expect(mailed()).toContain('12 addresses within an hour')
  await eventually('the grant is gone', async () => {
    const shown = await stack.run('auth-relay', ['show', '--json', '--config', stack.config])
    return !shown.lines.join('').includes('203.0.113.1')
  })
  const explained = await stack.run('auth-relay', ['explain', '203.0.113.1', '--config', stack.config])
  expect(explained.transcript()).toContain('login ann blocked by alerts: login_spread: 12 addresses within an hour')
  const listed = await alerts('--json')
  expect(listed.ending?.code).toBe(1)
  expect(JSON.parse(listed.lines.join(''))).toMatchObject([{ rule: 'login_spread', subject: 'ann', until: null }])
  expect((await alerts()).lines[0]).toMatch(/^ALARM {2}login_spread: ann, 12 addresses within an hour, since /)
})

test('alerts test fires each rule; a rule that does not exist and nobody to tell are refused', async () => {
  configure({})
  const fired = await alerts('test')
  expect(fired.ending?.code, fired.transcript()).toBe(0)
  expect(fired.lines).toHaveLength(9)
  expect(fired.lines).toContain('device_rate by mail: told')
  expect(mailed().match(/^Subject: .* test$/gm)?.length).toBe(18)
  configure({ off: ['no_such_rule'] })
  const wrong = await alerts('run')
  expect([wrong.ending?.code, wrong.transcript()]).toEqual([
    100,
    expect.stringContaining('there is no rule no_such_rule'),
  ])
  configure({ mail_to: [] })
  const nobody = await alerts('test')
  expect([nobody.ending?.code, nobody.transcript()]).toEqual([
    100,
    expect.stringContaining('nobody is told: set alerts.mail_to'),
  ])
})
