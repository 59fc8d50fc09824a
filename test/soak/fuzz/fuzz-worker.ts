import { parentPort, workerData } from 'node:worker_threads'
import { Random } from './random.ts'
import { TARGETS } from './targets.ts'

/** Task of a thread: inputs `from` to `to` - 1 of one target. */
export type FuzzOrder = {
  readonly target: string
  readonly seed: number
  readonly from: number
  readonly to: number
  /** One number in shared memory: the input that the thread reads. */
  readonly progress: SharedArrayBuffer
}

function isOrder(data: unknown): data is FuzzOrder {
  return typeof data === 'object' && data !== null && 'progress' in data && data.progress instanceof SharedArrayBuffer
}

if (parentPort !== null && isOrder(workerData)) {
  const { target: name, seed, from, to, progress } = workerData
  const now = new Int32Array(progress)
  const target = TARGETS.find(each => each.name === name)
  if (target === undefined) throw new Error(`no target ${name}`)
  for (let n = from; n < to; n++) {
    now[0] = n
    try {
      target.attempt(new Random(seed, n))
    } catch (error) {
      const why = error instanceof Error ? (error.cause instanceof Error ? error.cause.stack : error.stack) : ''
      parentPort.postMessage(`input ${n}: ${error instanceof Error ? error.message : String(error)}\n${why}`)
      break
    }
  }
  now[0] = to
}
