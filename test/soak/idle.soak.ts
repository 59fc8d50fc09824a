import type { Socket } from 'node:net'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { eventually } from '../harness/eventually.ts'
import { type PopupStack, startPopup } from '../harness/pop3/popup-stack.ts'
import { resourcesOf } from '../harness/processes/process-status.ts'
import { areAlive, idleSessions } from './crowd.ts'
import { INSPECTED, liveMemory } from './live-memory.ts'
import { SOAK } from './settings.ts'
import { megabytes, table } from './table.ts'

/**
 * Limit for additional memory between the first crowd and the third: 300 octets for each session of
 * two crowds.
 */
const SLACK = 4_000_000
const WORKER_DESCRIPTORS = 40

let running: PopupStack
beforeAll(async () => {
  running = await startPopup(
    { max_connections: 50_000, max_per_address: 0, max_per_login: 50_000, max_per_owner: 50_000, login_time: 600 },
    { '': { log_level: 'warn' } },
    { env: INSPECTED },
  )
  running.stack.configure({
    '': { log_level: 'warn' },
    sslwrap: {
      listener: [{ listen: '127.0.0.1:0', backend: `127.0.0.1:${running.stack.port('popup')}` }],
      max_connections: 50_000,
      max_per_address: 0,
    },
  })
  await running.stack.start('sslwrap', { env: INSPECTED })
})
afterAll(() => running?.stop())

/** Resources of the programs: descriptors, and memory in use after garbage collection. */
type Held = {
  readonly popup: number
  readonly sslwrap: number
  readonly resident: number
  readonly descriptors: number
}

const descriptors = (): number => programs().reduce((sum, { pid }) => sum + resourcesOf(pid).descriptors, 0)
const programs = () => (['popup', 'sslwrap'] as const).map(name => running.stack.program(name))

async function held(): Promise<Held> {
  const [popup = 0, sslwrap = 0] = await Promise.all(programs().map(liveMemory))
  const resident = programs().reduce((sum, { pid }) => sum + resourcesOf(pid).memory, 0)
  return { popup, sslwrap, resident, descriptors: descriptors() }
}

/** All clients connect, stay during the measurement, and leave. */
async function crowd(): Promise<{ readonly during: Held; readonly after: Held }> {
  const before = descriptors()
  const sockets: Socket[] = []
  sockets.push(...(await idleSessions(running.stack.port('popup'), SOAK.idlePop3)))
  sockets.push(...(await idleSessions(running.stack.port('sslwrap'), SOAK.idleTls, { tls: true })))
  expect(await areAlive(sockets)).toBe(SOAK.idlePop3 + SOAK.idleTls)
  const during = await held()
  for (const socket of sockets) socket.destroy()
  // The first session starts a pop3d worker, which stays.
  await eventually('every session is over', () => descriptors() <= before + WORKER_DESCRIPTORS, 60_000)
  return { during, after: await held() }
}

test(`${SOAK.idlePop3} idle POP3 sessions and ${SOAK.idleTls} over TLS at once leave no resource in use`, async () => {
  const start = await held()
  const crowds = [await crowd(), await crowd(), await crowd()]
  const row = (when: string, { popup, sslwrap, resident, descriptors }: Held) => ({
    when,
    'popup and pop3d': megabytes(popup),
    sslwrap: megabytes(sslwrap),
    'resident, all': megabytes(resident),
    descriptors,
  })
  console.log(
    table(`memory in use: ${SOAK.idlePop3} idle POP3 sessions, ${SOAK.idleTls} idle TLS sessions`, [
      row('before', start),
      ...crowds.flatMap(({ during, after }, index) => [row(`crowd ${index + 1}`, during), row('  gone', after)]),
    ]),
  )
  const [first, , last] = crowds.map(({ after }) => after)
  if (first === undefined || last === undefined) expect.unreachable()
  for (const program of ['popup', 'sslwrap'] as const) {
    expect(last[program], `${program} after the third crowd`).toBeLessThan(first[program] + SLACK)
  }
  expect(last.descriptors).toBeLessThanOrEqual(start.descriptors + WORKER_DESCRIPTORS)
})
