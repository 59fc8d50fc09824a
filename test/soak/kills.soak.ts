import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { freePort } from '../harness/free-port.ts'
import { descendantsOf, type ProcessStatus, statusOf } from '../harness/processes/process-status.ts'
import { Stack } from '../harness/stack.ts'
import { Random } from './fuzz/random.ts'
import { MailTraffic, type Ports } from './mail-traffic.ts'
import { SOAK } from './settings.ts'
import { table } from './table.ts'

const CLIENTS = 6
const MESSAGES = 1500
/** Longest load before a process is killed, in milliseconds. */
const MOMENT = 250
/**
 * Kills of one stack. A program that is killed several times waits longer each time; a new stack
 * starts without this delay.
 */
const KILLS_PER_LIFE = 25

const isOf = (words: string) => (process: ProcessStatus) => process.commandLine.join(' ').includes(words)
const KINDS: readonly (readonly [string, (process: ProcessStatus) => boolean])[] = [
  ['authd', isOf('dist/authd.js')],
  ['popup monitor', isOf('dist/popup.js --config')],
  ['popup login', isOf('dist/popup.js --login')],
  ['pop3d worker', isOf('dist/pop3d.js --worker')],
  ['sslwrap parent', isOf('dist/sslwrap.js --config')],
  ['sslwrap worker', isOf('dist/sslwrap.js --worker')],
  ['wrap', isOf('dist/wrap.js')],
  ['smtpd', isOf('smtpd.sh')],
  ['PostgreSQL', isOf('postgres')],
]

let stack: Stack
let ports: Ports
beforeAll(async () => {
  ports = { pop3: await freePort(), pop3s: await freePort(), smtp: await freePort() }
  stack = new Stack()
  stack.configure({
    '': { log_level: 'info' },
    database: { embedded: true },
    grants: { grant_loopback: true, exp_time: 3600 },
    popup: { listen: [`127.0.0.1:${ports.pop3}`] },
    sslwrap: { listener: [{ listen: `127.0.0.1:${ports.pop3s}`, backend: `127.0.0.1:${ports.pop3}` }] },
    wrap: { listen: [`127.0.0.1:${ports.smtp}`], max_connections: 200 },
  })
})
afterAll(() => stack?.stop())

test(`kill -9 of every process, ${SOAK.kills} times under load; seed ${SOAK.seed}`, { timeout: 600_000 }, async () => {
  const random = new Random(SOAK.seed)
  const messages = Array.from({ length: MESSAGES }, (_, n) => `Subject: ${n}\n\n${'line\n'.repeat(n % 60)}the end\n`)
  const traffic = new MailTraffic(stack.account('ann', messages), () => ports, random)
  const committed = new Set<string>()
  const kills = new Map<string, number>()
  const backAfter: number[] = []
  const up = () => stack.start('auth-relay', { args: ['up', '--config', stack.config] })
  /**
   * Reads the logs of the programs in order. Returns the addresses with a committed grant, and
   * those that the gate did not find nevertheless.
   */
  const keep = (): void => {
    for (const { program, fields } of stack.program('auth-relay').log) {
      const { event, ip = '', grant, reason } = fields
      if (program === 'popup' && event === 'login_accepted' && grant === 'committed') committed.add(ip)
      if (program === 'wrap' && reason === 'no_grant' && committed.has(ip))
        traffic.faults.push(`${ip} was committed, and the gate found no grant`)
    }
  }
  await up()
  traffic.start(CLIENTS)
  for (let round = 0; round < SOAK.kills; round++) {
    if (round > 0 && round % KILLS_PER_LIFE === 0) {
      stack.program('auth-relay').signal('SIGKILL')
      await stack.program('auth-relay').ended
      kills.set('auth-relay up', (kills.get('auth-relay up') ?? 0) + 1)
      keep()
      await up()
    }
    await pause(random.int(MOMENT))
    const all = descendantsOf(stack.program('auth-relay').pid)
    // Some processes do not exist at all times: an smtpd, a pop3d worker.
    const running = KINDS.map(([name, choose]) => ({ name, candidates: all.filter(choose) }))
    const { name, candidates } = random.pick(running.filter(kind => kind.candidates.length > 0))
    const { pid } = random.pick(candidates)
    if (statusOf(pid) !== undefined) process.kill(pid, 'SIGKILL')
    kills.set(name, (kills.get(name) ?? 0) + 1)
    const killed = performance.now()
    const { completed, relayed } = traffic.counts
    await eventually(
      `service is back after kill ${round}, of ${name}`,
      () => traffic.counts.completed > completed && traffic.counts.relayed > relayed,
      60_000,
    )
    backAfter.push(performance.now() - killed)
  }
  await traffic.stop()
  keep()
  traffic.audit()
  const show = await stack.run('auth-relay', ['show', '--json', '--config', stack.config])
  expect(show.ending?.code).toBe(0)
  const stored = new Set(show.lines.flatMap(line => /"address": "([^"]+)"/.exec(line)?.[1] ?? []))
  backAfter.sort((a, b) => a - b)
  console.log(
    table(
      'kill -9 under load',
      [...kills].map(([process, times]) => ({ process, kills: times })),
    ),
  )
  console.log(
    `  service back after ${backAfter[backAfter.length >> 1]?.toFixed(0)} ms (median), ${backAfter.at(-1)?.toFixed(0)} ms (longest)`,
  )
  console.log(
    `  ${JSON.stringify(traffic.counts)}, ${committed.size} logins committed, ${traffic.deleted} messages deleted`,
  )
  expect(traffic.faults).toEqual([])
  expect(
    [...committed].filter(ip => !stored.has(ip)),
    'committed, and not in the table',
  ).toEqual([])
  expect(
    [...stored].filter(ip => !traffic.tried.has(ip)),
    'in the table, and never logged in',
  ).toEqual([])
  expect(committed.size).toBeGreaterThan(SOAK.kills)
})
