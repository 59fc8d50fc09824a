import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest'
import { prepareStage, runPlans } from '../simulation/run.ts'
import type { Stage } from '../simulation/stage.ts'
import { BrokenPromise, type WorldMutant } from '../simulation/world.ts'

const stage = vi.hoisted((): Stage => ({ sockets: undefined, handle: undefined, directory: '' }))

vi.mock('node:net', async importOriginal => {
  const { simulatedNet } = await import('../simulation/stage.ts')
  return simulatedNet(await importOriginal<typeof import('node:net')>(), stage)
})

let removeStage: () => void
beforeAll(async () => {
  removeStage = await prepareStage(stage)
})
afterAll(() => removeStage())

/** Fixed plans; `npm run test:soak -- simulation` uses new ones. */
const SEED = 5

describe('popup, authd and the gate in virtual time', () => {
  // docs/PROMISES.md names the number of device-days.
  test('keep every promise in 20,000 device-days', async () => {
    const { deviceDays, failure, replay } = await runPlans(stage, 20_000, SEED)
    expect(failure, replay).toBeUndefined()
    expect(deviceDays).toBeGreaterThanOrEqual(20_000)
  }, 300_000)

  test.each<WorldMutant>([
    'lookup ignores the end',
    'lookup ignores blocks',
    'commits get lost',
    'a repeat counts from now',
    'the list leaves an address out',
    'queued is called committed',
    'queued logins are dropped',
    'no address is ungrantable',
    'the cdb keeps what has ended',
    'a service caches its answers',
    'a service finds no grant',
  ])('the bug "%s" is found', async mutant => {
    const { failure } = await runPlans(stage, 20_000, SEED, [mutant])
    expect(failure).toBeInstanceOf(BrokenPromise)
  })
})
