import { afterAll, beforeAll, expect, test } from 'vitest'
import { databaseSettings } from '../harness/authd/authd-settings.ts'
import { restartUnderLoad } from '../harness/authd/rsyslog-restart.ts'
import { createTestDatabase, type TestDatabase } from '../harness/postgres/test-database.ts'
import { command, describeWith } from '../harness/runner/describe-with.ts'
import { Stack } from '../harness/stack.ts'

let database: TestDatabase
let stack: Stack

beforeAll(async () => {
  database = await createTestDatabase()
  stack = new Stack()
})
afterAll(async () => {
  await stack.stop()
  await database.remove()
})

describeWith([command('rsyslogd', 'rsyslog'), command('logger', 'bsdutils')], 'rsyslog', () => {
  test('delivers 100,000 logins over a restart of authd, and none is lost', async () => {
    const startAuthd = (listen: string): Promise<unknown> => {
      stack.configure({
        ...databaseSettings(database.connection('pop3authd')),
        authd: {
          socket: `${stack.directory}/run/authd.sock`,
          usage_socket: '',
          syslog_listen: [listen],
          check_daemon_ipop3d: true,
        },
      })
      return stack.start('authd')
    }
    await startAuthd('127.0.0.1:0')
    const port = stack.port('authd', 0, 'syslog')
    const logins = 100_000
    const started = performance.now()
    const { before, stored } = await restartUnderLoad({
      directory: stack.directory,
      database: database.owner,
      logins,
      port,
      stopAuthd: () => stack.stopPrograms(),
      startAuthd: () => startAuthd(`127.0.0.1:${port}`),
    })
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    console.log(`${before} logins before the restart, ${stored} of ${logins} in the end, ${seconds} s`)
    expect(before).toBeLessThan(logins)
    expect(stored).toBe(logins)
  })
})
