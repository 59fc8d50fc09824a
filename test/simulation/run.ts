import { existsSync } from 'node:fs'
import { connect, createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fc } from '@fast-check/vitest'
import { checkRuns } from '../harness/runner/check-runs.ts'
import { temporaryDirectory } from '../harness/temporary-directory.ts'
import { plan } from './plan.ts'
import type { Stage } from './stage.ts'
import { type PlantedBug, simulate } from './world.ts'

/** Steps of the longest plan. */
const STEPS = 240
/** Limit for making a failing plan smaller, in milliseconds. */
const SHRINK_MS = 60_000

/** A file system without a disk: a simulation replaces its files thousands of times. */
const MEMORY = '/dev/shm'

/** Gives the stage a real Unix socket and a directory; returns the function that removes them. */
export async function prepareStage(stage: Stage): Promise<() => void> {
  const directory = temporaryDirectory(existsSync(MEMORY) ? MEMORY : tmpdir())
  stage.directory = directory.path
  const path = join(directory.path, 'peer.sock')
  const { promise, resolve } = Promise.withResolvers<unknown>()
  const server = createServer(resolve).listen(path)
  const near = connect({ path })
  const far = await promise
  stage.handle = typeof far === 'object' && far !== null ? Reflect.get(far, '_handle') : undefined
  return () => {
    near.destroy()
    server.close()
    directory.remove()
  }
}

export type Report = {
  readonly deviceDays: number
  /** The seed that produced this report. */
  readonly nextSeed: number
  readonly failure: unknown
  /** The variable to set to repeat the failure, and the smallest plan that fails. */
  readonly replay: string
}

/**
 * Runs plans until one fails or the given number of device-days has passed. `SIMULATION_SEED`
 * names the first plan in place of `seed`.
 */
export async function runPlans(stage: Stage, most: number, seed: number, bug?: PlantedBug): Promise<Report> {
  const first = Number(process.env['SIMULATION_SEED'] ?? seed)
  let deviceDays = 0
  let next = first
  for (; deviceDays < most; next += 1) {
    const details = await checkRuns(
      plan(STEPS),
      async steps => {
        deviceDays += await simulate(steps, stage, bug)
      },
      { numRuns: 20, seed: next, endOnFailure: bug !== undefined, interruptAfterTimeLimit: SHRINK_MS },
    )
    if (details.failed) {
      const replay = `SIMULATION_SEED=${next} ${String(details.errorInstance)} ${fc.stringify(details.counterexample)}`
      return { deviceDays, nextSeed: next + 1, failure: details.errorInstance, replay }
    }
  }
  return { deviceDays, nextSeed: next, failure: undefined, replay: '' }
}
