import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { afterEach, beforeEach, expect, test } from 'vitest'
import { UsageFault } from '../../../src/base/errors.ts'
import type { RunningDaemon } from '../../../src/process/lifecycle.ts'
import { parseSettings } from '../../../src/settings/settings.ts'
import { planOf } from '../../../src/sslwrap/plan.ts'
import { type Planned, startSupervisor } from '../../../src/sslwrap/supervisor.ts'
import { eventually } from '../../harness/eventually.ts'
import { makeCertificate } from '../../harness/pop3/sslwrap.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

let directory = temporaryDirectory()
let supervisor: RunningDaemon | undefined

beforeEach(() => {
  directory = temporaryDirectory()
  const { path } = directory
  makeCertificate(`${path}/tls`, { names: ['mx.example.org'] })
  writeFileSync(`${path}/pass`, 'a secret of tests\n', { mode: 0o600 })
  writeFileSync(`${path}/worker.cjs`, WORKER.replaceAll('DIRECTORY', path))
  writeFileSync(`${path}/notes`, '')
  answer({ type: 'serving' })
})
afterEach(async () => {
  await supervisor?.stop()
  supervisor = undefined
  directory.remove()
})

/**
 * A program in place of a worker: records each order, and answers as the file demands. Without a
 * file the program waits for one.
 */
const WORKER = `
const { Socket } = require('node:net')
const { appendFileSync, readFileSync } = require('node:fs')
const channel = new Socket({ fd: 3, readable: true, writable: true })
let rest = ''
const answer = () => {
  try {
    channel.write(readFileSync('DIRECTORY/answer', 'utf8') + '\\n')
  } catch {
    setTimeout(answer, 5)
  }
}
channel.on('data', piece => {
  const lines = (rest + piece).split('\\n')
  rest = lines.pop()
  for (const line of lines) {
    const { type, ticketKeys = [] } = JSON.parse(line)
    appendFileSync('DIRECTORY/notes', [process.pid, type, ticketKeys.length].join(' ') + '\\n')
    if (type === 'drain') process.exit(0)
    answer()
  }
})
channel.on('close', () => process.exit(0))
`

function answer(message: object | undefined): void {
  const file = `${directory.path}/answer`
  if (message === undefined) rmSync(file)
  else writeFileSync(file, JSON.stringify(message))
}

/** The orders to the workers, in order of arrival. */
const notes = (): readonly { readonly pid: number; readonly type: string; readonly keys: number }[] =>
  readFileSync(`${directory.path}/notes`, 'utf8')
    .split('\n')
    .slice(0, -1)
    .map(line => line.split(' '))
    .map(([pid, type = '', keys]) => ({ pid: Number(pid), type, keys: Number(keys) }))
const pids = (): ReadonlySet<number> => new Set(notes().map(({ pid }) => pid))

function planned(more = ''): Planned {
  const { path } = directory
  const text = `
configured = true
[popup]
ssl_hack_pass = "${path}/pass"
[sslwrap]
user = "64321"
workers = 2
cert = "${path}/tls.crt"
key = "${path}/tls.key"
drain_time = "1s"
${more}
[[sslwrap.listener]]
listen = "127.0.0.1:0"
backend = "127.0.0.1:1"
preamble = "ssl"
`
  const { settings } = parseSettings(text, `${path}/auth-relay.toml`)
  return { plan: planOf(settings), settings }
}

async function start(readPlan = planned): Promise<RunningDaemon> {
  supervisor = await startSupervisor(() => readPlan(), `${directory.path}/worker.cjs`)
  return supervisor
}

test('is ready when every worker serves, on one address', async () => {
  const { ready } = await start()
  expect(ready).toMatch(/^listen=127\.0\.0\.1:\d+$/)
  expect(notes().map(({ type }) => type)).toEqual(['serve', 'serve'])
  expect(pids().size).toBe(2)
})

test('a worker that ends is replaced', async () => {
  await start()
  const [first] = pids()
  process.kill(first ?? 0, 'SIGKILL')
  await eventually('another worker serves', () => pids().size === 3)
})

test('a start fails with the reason of a worker that refuses, and leaves no worker', async () => {
  answer({ type: 'refused', reason: 'no such cipher' })
  await expect(start()).rejects.toThrow('a worker of sslwrap cannot serve: no such cipher')
  for (const pid of pids()) await eventually('the worker has ended', () => !existsSync(`/proc/${pid}`))
})

test('a reload gives each worker a new ticket key, and is over when each has answered', async () => {
  const { reload } = await start()
  answer(undefined)
  let isOver = false
  const reloading = Promise.resolve(reload?.()).then(() => {
    isOver = true
  })
  await eventually('each worker has its order', () => notes().length === 4)
  expect(isOver).toBe(false)
  answer({ type: 'serving' })
  await reloading
  const [before, after] = [notes().slice(0, 2), notes().slice(2)]
  expect(new Set(after.map(({ pid }) => pid))).toEqual(pids())
  expect(after[0]?.keys).toBe((before[0]?.keys ?? 0) + 1)
})

test('a worker that ends during a reload does not delay it', async () => {
  const { reload } = await start()
  answer(undefined)
  const reloading = Promise.resolve(reload?.())
  await eventually('each worker has its order', () => notes().length === 4)
  for (const pid of pids()) process.kill(pid, 'SIGKILL')
  answer({ type: 'serving' })
  await expect(reloading).resolves.toBeUndefined()
})

test('contradictory settings change nothing', async () => {
  let isFaulty = false
  const { reload } = await start(() => {
    if (isFaulty) throw new UsageFault('sslwrap.cert and sslwrap.key do not belong together')
    return planned()
  })
  isFaulty = true
  await expect(reload?.()).rejects.toThrow('do not belong together')
  writeFileSync(`${directory.path}/tls.crt`, 'no certificate')
  isFaulty = false
  await expect(reload?.()).rejects.toThrow('no certificate in PEM form')
  expect(notes().map(({ type }) => type)).toEqual(['serve', 'serve'])
})

test('the end is sent to each worker, and awaited', async () => {
  const { stop } = await start()
  const running = [...pids()]
  await stop()
  expect(notes().filter(({ type }) => type === 'drain')).toHaveLength(2)
  for (const pid of running) expect(existsSync(`/proc/${pid}`)).toBe(false)
})
