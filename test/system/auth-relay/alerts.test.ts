import { once } from 'node:events'
import { chmodSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { afterAll, afterEach, beforeAll, expect, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { freePort } from '../../harness/free-port.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { createTestDatabase, type TestDatabase } from '../../harness/postgres/test-database.ts'
import { Stack, TEST_PASSWORD } from '../../harness/stack.ts'

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
    // This test shows no certificate.
    popup: { listen: [] },
  })
}
const alerts = (...words: string[]) => stack.run('auth-relay', ['alerts', ...words, '--config', stack.config])
const mailed = (): string => (existsSync(mails) ? readFileSync(mails, 'utf8') : '')

test('a login from many addresses is reported by mail and blocked, and the command lists the alarm', async () => {
  configure({ close: ['login_spread'] })
  await database.owner.script(`
    INSERT INTO grants (ip, until, daemon, username) VALUES ('203.0.113.1', now() + interval '10 min', 'popup', 'ann');
    INSERT INTO login_event (at, ip, network, daemon, method, tls, username, session, until)
    SELECT now() - n * interval '1 minute', ip, ip, 'popup', 'pass', true, 'ann', '', now()
    FROM (SELECT n, '203.0.113.0'::inet + n AS ip FROM generate_series(1, 12) AS n) AS thief`)
  const none = await alerts()
  expect([none.ending?.code, none.lines]).toEqual([0, ['There is no alarm.']])
  const running = stack.launch('auth-relay', { args: ['alerts', 'run', '--config', stack.config] })
  await running.waitForLine(/^alerts ready every=60s reported_by=mail$/, 60_000)
  await eventually('a mail is sent', () => mailed().includes('Subject: [auth-relay] ALARM: login_spread ann'))
  expect(mailed()).toContain('TO -- noc@example.org')
  expect(mailed()).toContain('12 addresses within an hour')
  await eventually('the grant is deleted', async () => {
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

test('alerts test triggers each rule; an unknown rule and settings without a channel are refused', async () => {
  configure({})
  const fired = await alerts('test')
  expect(fired.ending?.code, fired.transcript()).toBe(0)
  expect(fired.lines).toHaveLength(9)
  expect(fired.lines).toContain('device_rate by mail: reported')
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
    expect.stringContaining('there is no way to report: set alerts.mail_to'),
  ])
})

test('under auth-relay up, the logins of a stolen password are reported by webhook, mail and program', async () => {
  const site = new Stack()
  const posted: unknown[] = []
  const hook = createServer((request, response) => {
    void text(request).then(body => {
      posted.push([request.headers['content-type'], JSON.parse(body)])
      response.end()
    })
  }).listen(0, '127.0.0.1')
  await once(hook, 'listening')
  try {
    const address = hook.address()
    if (address === null || typeof address === 'string') expect.unreachable()
    const reporters = ['mailer', 'teller'].map(name => {
      const file = `${site.directory}/${name}`
      writeFileSync(file, `#!/bin/sh\n{ echo "ARGS $*"; cat; } >> ${file}.got\n`)
      chmodSync(file, 0o755)
      return file
    })
    const [mailer = '', program = ''] = reporters
    site.account('ann', ['Subject: lunch\n\nAt noon?\n'])
    site.configure({
      database: { embedded: true },
      grants: { grant_loopback: true },
      popup: { listen: ['127.0.0.1:0'] },
      // An alarm checks the certificate of this listener.
      sslwrap: { listener: [{ listen: `127.0.0.1:${await freePort()}`, backend: '127.0.0.1:9' }] },
      alerts: {
        mail_to: ['noc@example.org'],
        mail_from: 'relay@example.org',
        sendmail: [mailer, '-i'],
        webhook_file: site.secret('webhook', `http://127.0.0.1:${address.port}/services/secret`),
        program: [program, 'now'],
        user: '',
        every: '10s',
        login_addresses: 3,
        close: ['login_spread'],
      },
    })
    await site.start('auth-relay', { args: ['up', '--config', site.config] })
    site.showLogsOnFailure()
    const ready = site.program('auth-relay').lines.find(line => line.startsWith('popup ready listen='))
    const port = /:(\d+)$/.exec(ready ?? '')?.[1]
    for (const number of [1, 2, 3, 4]) {
      const socket = connect({ port: Number(port), host: '127.0.0.1', localAddress: `127.0.1.${number}` })
      const session = Pop3Conversation.over(socket)
      await session.login('ann', TEST_PASSWORD)
      await session.quit()
    }
    const start = { rule: 'login_spread', state: 'start', subject: 'ann', until: null, severity: 'critical' }
    await eventually('the webhook receives the alarm', () => posted.length > 0, 60_000)
    expect(posted).toEqual([['application/json', expect.objectContaining(start)]])
    const got = (file: string) => (existsSync(`${file}.got`) ? readFileSync(`${file}.got`, 'utf8') : '')
    await eventually(
      'the mail and the program receive the alarm',
      () => got(mailer) !== '' && got(program).endsWith('}\n'),
    )
    expect(got(mailer)).toMatch(/^ARGS -i -f relay@example.org -- noc@example.org$/m)
    expect(got(mailer)).toMatch(/^Subject: \[auth-relay\] ALARM: login_spread ann$/m)
    expect(JSON.parse(got(program).replace(/^ARGS now\n/, ''))).toMatchObject(start)
    // The URL is a secret, and the rule closes the relay for the named login.
    expect(site.transcript()).not.toContain('services/secret')
    const explained = await site.run('auth-relay', ['explain', '127.0.1.1', '--config', site.config])
    expect(explained.transcript()).toContain('login ann blocked by alerts: login_spread')
    await site.program('auth-relay').waitForLine(/event=alarm_started rule=login_spread/)
  } finally {
    await site.stop()
    hook.close()
  }
})
