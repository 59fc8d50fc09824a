import { connect, createServer, type Server, type Socket } from 'node:net'
import { join } from 'node:path'
import { fc } from '@fast-check/vitest'
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { plan } from '../simulation/plan.ts'
import type { Stage } from '../simulation/stage.ts'
import { BrokenPromise, simulate, type WorldMutant } from '../simulation/world.ts'

const stage = vi.hoisted((): Stage => ({ sockets: undefined, handle: undefined, directory: '' }))

vi.mock('node:net', async importOriginal => {
  const { simulatedNet } = await import('../simulation/stage.ts')
  return simulatedNet(await importOriginal<typeof import('node:net')>(), stage)
})

/** `npm run test:soak -- simulation` passes a million. */
const DEVICE_DAYS = Number(process.env['SIMULATION_DEVICE_DAYS'] ?? 20_000)
const SEED = Number(process.env['SIMULATION_SEED'] ?? Math.floor(Math.random() * 2 ** 31))
const STEPS = 240

const directory = temporaryDirectory()
let server: Server
let near: Socket

beforeAll(async () => {
  stage.directory = directory.path
  const path = join(directory.path, 'peer.sock')
  const { promise, resolve } = Promise.withResolvers<Socket>()
  server = createServer(resolve).listen(path)
  near = connect({ path })
  stage.handle = Reflect.get(await promise, '_handle')
})
afterAll(() => {
  near.destroy()
  server.close()
  directory.remove()
})

/** Runs plans until one fails, or so many device-days have passed. A failure is made smaller for half a minute. */
async function run(most: number, mutants: readonly WorldMutant[] = []) {
  let deviceDays = 0
  for (let seed = SEED; deviceDays < most; seed += 1) {
    const details = await fc.check(
      fc.asyncProperty(plan(STEPS), async steps => {
        deviceDays += await simulate(steps, stage, mutants)
      }),
      { numRuns: 20, seed, endOnFailure: mutants.length > 0, interruptAfterTimeLimit: 30_000 },
    )
    if (details.failed) {
      const replay = `SIMULATION_SEED=${seed} ${fc.stringify(details.counterexample)}`
      return { deviceDays, failure: details.errorInstance, replay }
    }
  }
  return { deviceDays, failure: undefined, replay: '' }
}

describe('popup, authd and the gate in virtual time', () => {
  test(`${DEVICE_DAYS} days of devices break no promise`, async () => {
    const { deviceDays, failure, replay } = await run(DEVICE_DAYS)
    expect(failure, replay).toBeUndefined()
    expect(deviceDays).toBeGreaterThanOrEqual(DEVICE_DAYS)
  }, 3_600_000)

  test.each<WorldMutant>([
    'lookup ignores the end',
    'lookup ignores blocks',
    'commits get lost',
    'a repeat counts from now',
    'the list leaves an address out',
    'queued is called committed',
    'queued logins are dropped',
    'no address is ungrantable',
  ])('the bug "%s" is found', async mutant => {
    const { failure } = await run(10_000, [mutant])
    expect(failure).toBeInstanceOf(BrokenPromise)
  })
})
