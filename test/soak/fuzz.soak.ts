import { availableParallelism } from 'node:os'
import { Worker } from 'node:worker_threads'
import { expect, test } from 'vitest'
import type { FuzzOrder } from './fuzz/fuzz-worker.ts'
import { TARGETS } from './fuzz/targets.ts'
import { SOAK } from './settings.ts'

/** Limit for one input. A reader needs microseconds, so a longer time means that it hangs. */
const HANG_MS = 10_000
/** Heap limit of a thread; a reader that keeps its input exceeds it. */
const HEAP_MB = 192
const script = new URL('./fuzz/fuzz-worker.ts', import.meta.url)

/** Runs a share of the inputs on a separate thread. Returns the failure, or undefined. */
async function fuzz(order: Omit<FuzzOrder, 'progress'>): Promise<string | undefined> {
  const progress = new SharedArrayBuffer(4)
  const seen = new Int32Array(progress)
  const worker = new Worker(script, {
    workerData: { ...order, progress } satisfies FuzzOrder,
    resourceLimits: { maxOldGenerationSizeMb: HEAP_MB },
  })
  let last = -1
  const { promise, resolve } = Promise.withResolvers<string | undefined>()
  const watch = setInterval(() => {
    if (seen[0] === last) resolve(`input ${last} hangs`)
    last = seen[0] ?? -1
  }, HANG_MS)
  worker.once('message', (fault: unknown) => resolve(String(fault)))
  worker.once('error', error => resolve(`after input ${seen[0]}: ${error.message}`))
  worker.once('exit', () => resolve(undefined))
  const fault = await promise
  clearInterval(watch)
  await worker.terminate()
  return fault
}

test.each(TARGETS.map(({ name }) => name))('%s', { timeout: 600_000 }, async target => {
  const [first, end] = SOAK.only >= 0 ? [SOAK.only, SOAK.only + 1] : [0, SOAK.inputs]
  const threads = Math.min(availableParallelism(), end - first)
  const share = Math.ceil((end - first) / threads)
  const started = performance.now()
  const faults = await Promise.all(
    Array.from({ length: threads }, (_, index) => {
      const from = first + index * share
      return fuzz({ target, seed: SOAK.seed, from, to: Math.min(end, from + share) })
    }),
  )
  const again = `again: SOAK_SEED=${SOAK.seed} SOAK_ONLY=NUMBER npm run test:soak -- fuzz -t ${target}`
  expect(faults.filter(fault => fault !== undefined).map(fault => `${fault}\n${again}`)).toEqual([])
  const seconds = (performance.now() - started) / 1000
  console.log(`${target}: ${end - first} inputs in ${seconds.toFixed(1)} s, seed ${SOAK.seed}`)
})
