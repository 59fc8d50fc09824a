import { type Clock, monotonicClock } from './clock.ts'

const FIRST_MS = 100
const LONGEST_MS = 10_000
/** After a run of this length the next wait is the first again. */
const SOUND_RUN_MS = 60_000

/**
 * How long to wait before a process is started again: 0.1 s, doubled at each failure up to 10 s.
 */
export class RestartDelay {
  #next = FIRST_MS

  /** Milliseconds to wait, after a run of `ranForMs`. */
  next(ranForMs: number): number {
    if (ranForMs >= SOUND_RUN_MS) this.reset()
    const delay = this.#next
    this.#next = Math.min(LONGEST_MS, delay * 2)
    return delay
  }

  reset(): void {
    this.#next = FIRST_MS
  }
}

/**
 * Restarts one process: at most one start is scheduled at a time, and the delay grows while runs
 * are short. The owner calls `began` at each start and `schedule` at each end; `cancel` ends it.
 */
export class Restarts {
  readonly #start: () => void
  readonly #clock: Clock
  readonly #delay = new RestartDelay()
  #begun: number
  #timer: NodeJS.Timeout | undefined
  #isCancelled = false

  constructor(start: () => void, clock: Clock = monotonicClock) {
    this.#start = start
    this.#clock = clock
    this.#begun = clock()
  }

  get isScheduled(): boolean {
    return this.#timer !== undefined
  }

  began(): void {
    this.#begun = this.#clock()
  }

  /**
   * Schedules the next start and returns the milliseconds until then. `inOrder`: the run did not
   * fail, so it is 0.
   */
  schedule({ inOrder = false }: { readonly inOrder?: boolean } = {}): number {
    const wait = this.#waitAfter(inOrder)
    clearTimeout(this.#timer)
    if (this.#isCancelled) return wait
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      this.#start()
    }, wait)
    return wait
  }

  cancel(): void {
    this.#isCancelled = true
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #waitAfter(inOrder: boolean): number {
    if (!inOrder) return this.#delay.next(this.#clock() - this.#begun)
    this.#delay.reset()
    return 0
  }
}
