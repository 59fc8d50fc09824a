import { afterAll, beforeAll, expect, test, vi } from 'vitest'
import { fitOut, runPlans } from '../simulation/run.ts'
import type { Stage } from '../simulation/stage.ts'

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
  const { deviceDays, failure, replay } = await runPlans(stage, DEVICE_DAYS, Math.floor(Math.random() * 2 ** 31))
  expect(failure, replay).toBeUndefined()
  expect(deviceDays).toBeGreaterThanOrEqual(DEVICE_DAYS)
}, 7_200_000)
