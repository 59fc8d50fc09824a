import { setImmediate } from 'node:timers/promises'

/** Milliseconds for which a long job may block the other sessions of the process. */
const SLICE_MS = 4

/**
 * Divides a long job into slices. Await `pause()` between the steps of the job; the event loop then
 * runs every 4 ms.
 */
export class TimeSlice {
  #end = performance.now() + SLICE_MS

  /** Undefined during the slice, so that ten thousand steps do not make ten thousand promises. */
  pause(): Promise<void> | undefined {
    return performance.now() < this.#end ? undefined : this.#yield()
  }

  async #yield(): Promise<void> {
    await setImmediate()
    this.#end = performance.now() + SLICE_MS
  }
}
