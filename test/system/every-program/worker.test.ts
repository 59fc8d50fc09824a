import { readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { afterEach, describe, expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import { idsOf } from '../../../src/process/privileges.ts'
import { programBeside } from '../../../src/process/worker-process.ts'
import { eventually } from '../../harness/eventually.ts'
import { Program, run } from '../../harness/processes/program.ts'
import { describeWith, ROOT } from '../../harness/runner/describe-with.ts'

const FIXTURE = new URL('daemon-for-tests.ts', import.meta.url).pathname
const command = (...args: string[]) => [process.execPath, FIXTURE, ...args]

let programs: Program[] = []
const start = (args: string[], env = {}): Program => {
  const program = new Program('sample', command(...args), { env })
  programs.push(program)
  return program
}
afterEach(async () => {
  await Promise.all(programs.map(program => program.stop()))
  programs = []
})

const addressIn = (line: string): { held: number; worker: number } => {
  const { held, worker } = /held .*"port":(?<held>\d+)\} worker (?<worker>\d+)/.exec(line)?.groups ?? {}
  return { held: Number(held), worker: Number(worker) }
}

describe('a worker', () => {
  test('receives and answers whole messages of any size over the channel', async () => {
    const parent = start(['parent'])
    expect(await parent.waitForLine(/^from worker/)).toContain('"got":100000')
  })

  test('inherits no secret and no variable of the service manager', async () => {
    const secrets = { DBPASS: 'x', WRAP_DBPASS: 'y', NOTIFY_SOCKET: '/nowhere', AUTHRELAY_SUPERVISED: '0' }
    const parent = start(['parent'], secrets)
    expect(await parent.waitForLine(/^from worker/)).toContain('"secrets":[]')
  })

  test('serves the listening socket that the parent holds', async () => {
    const parent = start(['parent'])
    const { held, worker } = addressIn(await parent.waitForLine(/^bound/))
    const client = createConnection(held, '127.0.0.1').setEncoding('latin1')
    let text = ''
    for await (const chunk of client) text += String(chunk)
    expect(text).toBe(`worker ${worker}\n`)
  })

  test('ends with its parent, for each way in which the parent ends', async () => {
    const parent = start(['parent'])
    const { worker } = addressIn(await parent.waitForLine(/^bound/))
    await parent.waitForLine(/^from worker/)
    parent.signal('SIGKILL')
    await parent.ended
    await eventually('the worker has ended', () => {
      try {
        process.kill(worker, 0)
        return false
      } catch {
        return true // ESRCH: no such process
      }
    })
  })

  test.each(['garbage', 'flood'])(
    'that sends %s loses its channel; the parent continues and needs less than 200 MB',
    async what => {
      const parent = start(['parent', what])
      const [, peak] = /^channel closed, peak (\d+) kB$/.exec(await parent.waitForLine(/^channel closed/)) ?? []
      expect(Number(peak)).toBeLessThan(200_000)
      await parent.waitForLine(/^worker ended/)
      expect(parent.lines.join('\n')).not.toContain('after')
    },
  )
})

describeWith([ROOT], 'as root', () => {
  test('a worker drops its privileges before it answers', async () => {
    const parent = start(['parent', '61199'])
    const { worker } = addressIn(await parent.waitForLine(/^bound/))
    expect(await parent.waitForLine(/^from worker/)).toContain('"uid":61199')
    const status = readFileSync(`/proc/${worker}/status`, 'utf8')
    expect(status).toMatch(/^Uid:\t61199\t61199\t61199\t61199$/m)
    expect(status).toMatch(/^Gid:\t61199\t61199\t61199\t61199$/m)
    expect(status).toMatch(/^Groups:\s*$/m)
    expect(status).toMatch(/^CapEff:\t0+$/m)
    expect(status).toMatch(/^CapPrm:\t0+$/m)
  })

  test.each([
    ['61199', 'uid=61199 gid=61199'],
    ['61199:61200', 'uid=61199 gid=61200'],
    ['daemon', 'uid=1 gid=1'],
  ])('%s: the privileges cannot be taken back', async (account, ids) => {
    const { lines, ending } = await run(command('drop', account))
    expect(lines).toEqual([expect.stringContaining(`dropped ${ids} groups=[`), 'no way back'])
    expect(lines[0]).toMatch(/groups=\[(\d+)?\]$/)
    expect(ending?.code).toBe(0)
  })
})

describe('accounts', () => {
  test.each([
    ['daemon', { uid: 1, gid: 1 }],
    ['0', { uid: 0, gid: 0 }],
    ['61199', { uid: 61199, gid: 61199 }],
    ['61199:5', { uid: 61199, gid: 5 }],
  ])('%s', (account, ids) => {
    expect(idsOf(account, 'popup.login_user')).toEqual(ids)
  })

  test.each(['no-such-account', '', '1:x', '4294967295', '9999999999', '-1'])(
    '%j is not an account, and the setting is named',
    account => {
      expect(() => idsOf(account, 'popup.login_user')).toThrow(UsageFault)
      expect(() => idsOf(account, 'popup.login_user')).toThrow(/popup\.login_user/)
    },
  )
})

test.each([
  ['/opt/auth-relay/dist/popup.js', '/opt/auth-relay/dist/pop3d.js'],
  ['/srv/auth-relay/src/popup/main.ts', '/srv/auth-relay/src/pop3d/main.ts'],
])('another program beside %s', (running, beside) => {
  expect(programBeside('pop3d', running)).toBe(beside)
})
