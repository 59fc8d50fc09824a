import { createConnection } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { Pop3Conversation } from '../harness/pop3/pop3-conversation.ts'
import { descendantsOf, type ProcessStatus, statusOf } from '../harness/processes/process-status.ts'
import { SmtpConversation } from '../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_PASSWORD } from '../harness/stack.ts'

/**
 * Seconds of a grant in this stack. Long enough for every test, because each test begins by
 * deleting the grant.
 */
const EXP_TIME = 3600

let stack: Stack

beforeAll(async () => {
  stack = new Stack()
  stack.configure({
    database: { embedded: true },
    grants: { grant_loopback: true, exp_time: EXP_TIME },
    // POP3 and local mail continue after these times while the database is down.
    popup: { listen: ['127.0.0.1:0'], grant_wait: '1s' },
    sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] },
    wrap: { listen: ['127.0.0.1:0'], wrap_timeout: '3s' },
  })
  stack.account('ann', ['Subject: lunch\n\nAt noon?\n'])
  await stack.start('auth-relay', { args: ['up', '--config', stack.config] })
})
beforeEach(() => stack.showLogsOnFailure())
afterAll(() => stack?.stop())

/** Addresses of a program since its last start; with port 0 each start has other ports. */
const portOf = (program: string): number => {
  const ready = stack.program('auth-relay').lines.findLast(line => line.startsWith(`${program} ready listen=`))
  return Number(/:(\d+)$/.exec(ready ?? '')?.[1])
}

/** Reads the mailbox; returns milliseconds from password to +OK. */
const readMail = async (): Promise<number> => {
  const client = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
  try {
    await client.expect(/^\+OK/)
    await client.ask('USER ann', /^\+OK/)
    const sentAt = client.say(`PASS ${TEST_PASSWORD}`)
    const { at } = await client.expect(/^\+OK/)
    client.say('RETR 1')
    await client.expect(/^\+OK/)
    expect(await client.expectLinesToDot()).toContain('Subject: lunch')
    await client.quit()
    return at - sentAt
  } finally {
    client.close()
  }
}

const askFor = async (recipient: string): Promise<number> => {
  const client = SmtpConversation.over(createConnection(portOf('wrap'), '127.0.0.1'))
  try {
    return (await client.askFor(recipient)).code
  } finally {
    client.close()
  }
}
const mayRelay = async (): Promise<boolean> => (await askFor('somebody@elsewhere.example')) === 250

/**
 * Deletes the grant as a program of the administrator would: the row is deleted, and there is no
 * block.
 */
const forget = async (): Promise<void> => {
  const revoke = await stack.run('auth-relay', ['revoke', '127.0.0.1', '--for', '1s', '--config', stack.config])
  expect([revoke.ending?.code, revoke.lines.join('\n')]).toEqual([0, expect.any(String)])
  await eventually('the relay is closed', async () => !(await mayRelay()))
}

const everyProcess = (): readonly ProcessStatus[] => descendantsOf(stack.program('auth-relay').pid)
const isOf = (name: string) => (process: ProcessStatus) => process.commandLine.join(' ').includes(name)

describe('the database does not respond', () => {
  let frozen: readonly ProcessStatus[] = []
  const wake = (): void => {
    for (const { pid } of frozen) process.kill(pid, 'SIGCONT')
    frozen = []
  }
  afterAll(wake)

  test('mail can be read, the relay stays closed, local mail is accepted; later the login counts', async () => {
    await forget()
    frozen = everyProcess().filter(isOf('postgres'))
    expect(frozen.length).toBeGreaterThan(1)
    for (const { pid } of frozen) process.kill(pid, 'SIGSTOP')
    // The margin over grant_wait is for a loaded machine.
    expect(await readMail()).toBeLessThan(15_000)
    await stack.waitForLog('popup', { event: 'login_accepted', grant: 'queued' })
    expect(await mayRelay()).toBe(false)
    expect(await askFor('ann@example.org')).toBe(250)
    wake()
    await eventually('the queued login is stored', mayRelay, 30_000)
  })
})

describe.each([
  ['authd', (all: readonly ProcessStatus[]) => all.filter(isOf('dist/authd.js'))],
  ['the popup monitor', (all: readonly ProcessStatus[]) => all.filter(isOf('dist/popup.js --config'))],
  ['the popup login process', (all: readonly ProcessStatus[]) => all.filter(isOf('dist/popup.js --login'))],
  ['the pop3d worker', (all: readonly ProcessStatus[]) => all.filter(isOf('dist/pop3d.js --worker'))],
  ['wrap', (all: readonly ProcessStatus[]) => all.filter(isOf('dist/wrap.js'))],
  ['the database', (all: readonly ProcessStatus[]) => all.filter(isOf('postgres'))],
])('%s is killed', (_name, choose) => {
  test('the process is started again; then a login opens the relay again', { timeout: 180_000 }, async () => {
    await readMail() // starts a pop3d worker
    const killed = choose(everyProcess())
    expect(killed.length).toBeGreaterThan(0)
    for (const { pid } of killed) if (statusOf(pid) !== undefined) process.kill(pid, 'SIGKILL')
    await eventually('the killed processes have ended', () =>
      killed.every(({ pid }) => statusOf(pid)?.commandLine.length === undefined),
    )
    await eventually('mail can be read again', async () => (await readMail()) >= 0, 60_000)
    await eventually('the database accepts the administrator again', async () => forget().then(() => true), 60_000)
    await eventually('a login opens the relay again', async () => (await readMail()) >= 0 && (await mayRelay()), 60_000)
  })
})

test('when auth-relay up itself is killed, everything that it started ends', async () => {
  await readMail()
  const children = everyProcess()
  stack.program('auth-relay').signal('SIGKILL')
  await stack.program('auth-relay').ended
  const left = (): readonly ProcessStatus[] =>
    children.flatMap(({ pid }) => statusOf(pid) ?? []).filter(({ commandLine }) => commandLine.length > 0)
  await eventually('no process is left', () => left().length === 0, 60_000)
})
