const FIRST = 250
const LONGEST = 30_000
/** A program that ran this long had started well: the next crash is its first again. */
const WELL = 60_000

/** How long a crashed program rests before it is started again: 0.25 s, doubled at each crash up to 30 s. */
export class RestartDelay {
  #next = FIRST

  /** Milliseconds to wait, after a run of `ranFor` milliseconds. */
  next(ranFor: number): number {
    if (ranFor >= WELL) this.#next = FIRST
    const delay = this.#next
    this.#next = Math.min(LONGEST, delay * 2)
    return delay
  }
}
