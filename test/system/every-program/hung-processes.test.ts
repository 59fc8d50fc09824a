import { createConnection } from 'node:net'
import { afterAll, beforeAll, beforeEach, describe, onTestFinished, test } from 'vitest'
import { eventually } from '../../harness/eventually.ts'
import { Pop3Conversation } from '../../harness/pop3/pop3-conversation.ts'
import { descendantsOf } from '../../harness/processes/process-status.ts'
import { SmtpConversation } from '../../harness/smtp/smtp-conversation.ts'
import { Stack, TEST_IDS, TEST_PASSWORD } from '../../harness/stack.ts'

let stack: Stack
const portOf = (program: string): number => {
  const ready = stack.program('auth-relay').lines.findLast(line => line.startsWith(`${program} ready listen=`))
  return Number(/:(\d+)( |$)/.exec(ready ?? '')?.[1])
}

beforeAll(async () => {
  stack = new Stack({
    database: { embedded: true },
    grants: { grant_loopback: true },
    popup: { listen: ['127.0.0.1:0'] },
    // popup's port is chosen at its start. POP3 over TLS therefore ends at an sslwrap worker.
    sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] },
    wrap: { listen: ['127.0.0.1:0'] },
    'status-page': { listen: '127.0.0.1:0', user: `${TEST_IDS.gate}` },
    alerts: { program: ['/bin/true'], user: `${TEST_IDS.authd}` },
  })
  stack.account('ann', ['Subject: lunch\n\nAt noon?\n'])
  await stack.start('auth-relay', { args: ['up', '--config', stack.config] })
})
beforeEach(() => stack.showLogsOnFailure())
afterAll(() => stack?.stop())

const readMail = async (): Promise<boolean> => {
  const client = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
  try {
    await client.login('ann', TEST_PASSWORD)
    return true
  } catch {
    return false // not yet
  } finally {
    client.close()
  }
}
const mayRelay = async (): Promise<boolean> => {
  const client = SmtpConversation.over(createConnection(portOf('wrap'), '127.0.0.1'))
  try {
    return (await client.askFor('somebody@elsewhere.example')).code === 250
  } catch {
    return false // not yet
  } finally {
    client.close()
  }
}
/** A program that is started again listens on another port, which its ready line names. */
const servesTls = (): Promise<boolean> =>
  new Promise(resolve => {
    const client = createConnection(portOf('sslwrap'), '127.0.0.1')
    client.once('connect', () => resolve(true)).once('error', () => resolve(false))
    client.once('connect', () => client.destroy())
  })
const find = (isIt: (commandLine: readonly string[]) => boolean): number | undefined =>
  descendantsOf(stack.program('auth-relay').pid).find(({ commandLine }) => isIt(commandLine))?.pid
const ofNode = (script: string, word?: string) => (words: readonly string[]) =>
  words.some(each => each.endsWith(`/dist/${script}.js`)) &&
  (word === undefined ? !words.includes('--login') && !words.includes('--worker') : words.includes(word))

type Process = readonly [name: string, isIt: (commandLine: readonly string[]) => boolean]

/** Pids of the processes; a replaced process has another pid. */
const pidsOf = (processes: readonly Process[]): readonly number[] =>
  processes.map(([name, isIt]) => {
    const pid = find(isIt)
    if (pid === undefined) throw new Error(`${name} does not run`)
    return pid
  })

/**
 * Stops the processes together, because each one counts as hung only after three pings. The limits
 * here are those of a busy machine. test/unit/base/supervised-child.test.ts counts the pings, and
 * shows that a process is hung after 15 s at most.
 */
async function standStill(processes: readonly Process[]): Promise<void> {
  await eventually('mail is read before', readMail, 60_000)
  // A worker that is stopped before sslwrap is ready ends sslwrap instead of the worker alone.
  await eventually('sslwrap is ready before', servesTls, 60_000)
  const pids = pidsOf(processes)
  const silent = (): number =>
    stack.program('auth-relay').lines.filter(line => line.includes('no answer to pings')).length
  const before = silent()
  for (const pid of pids) process.kill(pid, 'SIGSTOP')
  await Promise.all(
    processes.map(([name, isIt], index) => eventually(`${name} is killed`, () => find(isIt) !== pids[index], 60_000)),
  )
  await eventually('mail is read again', readMail, 60_000)
  await eventually('the address relays', mayRelay, 60_000)
  for (const [name, isIt] of processes) await eventually(`another ${name} runs`, () => find(isIt) !== undefined, 60_000)
  await eventually('each end has its reason in the log', () => silent() >= before + processes.length)
}

describe('processes that do not respond are killed and started again, and the stack serves', () => {
  test('processes that `up` started', { timeout: 180_000 }, () =>
    standStill([
      ['monitor of popup', ofNode('popup')],
      ['parent of sslwrap', ofNode('sslwrap')],
      ['authd', ofNode('authd')],
      ['gate', ofNode('wrap')],
      ['status page', ofNode('auth-relay', 'status-page')],
      ['alerts', ofNode('auth-relay', 'alerts')],
      ['PostgreSQL', words => words[0]?.endsWith('/bin/postgres') === true],
    ]),
  )

  test('processes that the programs started', { timeout: 180_000 }, () =>
    standStill([
      ['login process', ofNode('popup', '--login')],
      ['pop3d worker', ofNode('pop3d', '--worker')],
      ['sslwrap worker', ofNode('sslwrap', '--worker')],
    ]),
  )

  test('the sessions of a silent worker end', { timeout: 120_000 }, async () => {
    await eventually('mail is read before', readMail, 60_000)
    const client = Pop3Conversation.over(createConnection(portOf('popup'), '127.0.0.1'))
    await client.login('ann', TEST_PASSWORD)
    const [worker] = pidsOf([['pop3d worker', ofNode('pop3d', '--worker')]])
    process.kill(worker ?? 0, 'SIGSTOP')
    await client.expectEnd(60_000)
  })

  test('a worker of sslwrap that is stopped while it loads: the start fails, and names the reason', {
    timeout: 120_000,
  }, async () => {
    const loading = new Stack({ sslwrap: { listener: [{ listen: '127.0.0.1:0', backend: '127.0.0.1:9' }] } })
    onTestFinished(() => loading.stop())
    const sslwrap = loading.launch('sslwrap')
    const isWorker = ofNode('sslwrap', '--worker')
    const worker = await eventually(
      'a worker loads',
      () => descendantsOf(sslwrap.pid).find(({ commandLine }) => isWorker(commandLine))?.pid,
    )
    process.kill(worker, 'SIGSTOP')
    await sslwrap.waitForLine(/a worker of sslwrap ended before it served: no answer to pings/, 60_000)
  })
})
