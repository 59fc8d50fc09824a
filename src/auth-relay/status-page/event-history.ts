import type { EventCounts, StatusFeed } from '../../grants/status-feed.ts'

/** Seconds of one step of the chart, and how many it has: twelve hours. */
export const STEP = 600
export const STEPS = 72

const STEP_MS = STEP * 1000
/** Milliseconds that one question covers while the past is read, so that none is long on a busy site. */
const PIECE_MS = 6 * STEP_MS
/** Milliseconds within which a login may be stored after its own time, e.g. because the database was away. */
const SETTLE_MS = 2 * STEP_MS

const floor = (time: number): number => Math.floor(time / STEP_MS) * STEP_MS

/**
 * The counts behind the chart. What is past does not change any more: it is read once, and only the
 * last steps again.
 */
export class EventHistory {
  readonly #feed: Pick<StatusFeed, 'countEvents'>
  readonly #steps = new Map<number, EventCounts>()

  constructor(feed: Pick<StatusFeed, 'countEvents'>) {
    this.#feed = feed
  }

  /** Reads everything, the newest first. */
  async readAll(now: Date): Promise<void> {
    const oldest = floor(now.getTime()) - (STEPS - 1) * STEP_MS
    for (let to = floor(now.getTime()) + STEP_MS; to > oldest; to -= PIECE_MS) {
      await this.#read(Math.max(oldest, to - PIECE_MS), to)
    }
  }

  /** Reads the steps that may have changed. */
  readLast(now: Date): Promise<void> {
    return this.#read(floor(now.getTime() - SETTLE_MS), floor(now.getTime()) + STEP_MS)
  }

  /** Every step of the chart, the oldest first; those without events are zero. */
  steps(now: Date): readonly EventCounts[] {
    const last = floor(now.getTime())
    return Array.from({ length: STEPS }, (_, index) => {
      const start = last - (STEPS - 1 - index) * STEP_MS
      return this.#steps.get(start) ?? { start: new Date(start), granted: 0, refused: 0, relayed: 0, closed: 0 }
    })
  }

  async #read(from: number, to: number): Promise<void> {
    const found = await this.#feed.countEvents(new Date(from), new Date(to), STEP)
    for (const start of this.#steps.keys()) {
      if (start < to - STEPS * STEP_MS || (start >= from && start < to)) this.#steps.delete(start)
    }
    for (const counts of found) this.#steps.set(counts.start.getTime(), counts)
  }
}
