import { setImmediate } from 'node:timers/promises'

/** Milliseconds that a long job may keep the other sessions of the process waiting. */
const SLICE = 4

/**
 * Divides a long job: await `pause()` between its steps, and the event loop gets its turn every few
 * milliseconds.
 */
export class TimeSlice {
  #end = performance.now() + SLICE

  /** Undefined while the slice lasts, so that no promise is made for each of ten thousand steps. */
  pause(): Promise<void> | undefined {
    return performance.now() < this.#end ? undefined : this.#yield()
  }

  async #yield(): Promise<void> {
    await setImmediate()
    this.#end = performance.now() + SLICE
  }
}
