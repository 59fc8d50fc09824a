import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { fitOut, runPlans } from '../simulation/run.ts'
import type { Stage } from '../simulation/stage.ts'
import { SOAK } from './settings.ts'

const stage = vi.hoisted((): Stage => ({ sockets: undefined, handle: undefined, directory: '' }))

vi.mock('node:net', async importOriginal => {
  const { simulatedNet } = await import('../simulation/stage.ts')
  return simulatedNet(await importOriginal<typeof import('node:net')>(), stage)
})

let clearAway: () => void
beforeAll(async () => {
  clearAway = await fitOut(stage)
})
afterAll(() => clearAway())

const DEVICE_DAYS = Number(process.env['SIMULATION_DEVICE_DAYS'] ?? 100_000)

test(`popup, authd and the gate break no promise in ${DEVICE_DAYS} days of devices`, async () => {
  const began = performance.now()
  const { deviceDays, failure, replay } = await runPlans(stage, DEVICE_DAYS, SOAK.seed)
  expect(failure, replay).toBeUndefined()
  const minutes = ((performance.now() - began) / 60_000).toFixed(1)
  console.log(`simulation: ${deviceDays} device-days in ${minutes} min, SOAK_SEED=${SOAK.seed}`)
  expect(deviceDays).toBeGreaterThanOrEqual(DEVICE_DAYS)
}, 7_200_000)
