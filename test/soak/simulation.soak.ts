import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { prepareStage, runPlans } from '../simulation/run.ts'
import type { Stage } from '../simulation/stage.ts'
import { SOAK } from './settings.ts'

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

/** Device-days between two lines of progress. */
const STEP_DAYS = 10_000
const DEVICE_DAYS = Number(process.env['SIMULATION_DEVICE_DAYS'] ?? 1_000_000)

test(`popup, authd and the gate keep every promise in ${DEVICE_DAYS} device-days`, async () => {
  const began = performance.now()
  let deviceDays = 0
  let seed = SOAK.seed
  while (deviceDays < DEVICE_DAYS) {
    const part = await runPlans(stage, Math.min(STEP_DAYS, DEVICE_DAYS - deviceDays), seed)
    expect(part.failure, part.replay).toBeUndefined()
    deviceDays += part.deviceDays
    seed = part.nextSeed
    const minutes = ((performance.now() - began) / 60_000).toFixed(1)
    console.log(
      `simulation: ${Math.floor(deviceDays)} device-days in ${minutes} min, seeds ${SOAK.seed} to ${seed - 1}`,
    )
  }
  expect(deviceDays).toBeGreaterThanOrEqual(DEVICE_DAYS)
}, 7_200_000)
