import { errorCodeOf } from './errors.ts'
/** Writes octets to a descriptor and says how many it took; throws as write(2) fails. */
export type WriteOctets = (octets: Buffer) => number

/** Octets kept for a reader that is slow; lines beyond are lost, and their number is said when there is room again. */
const MAX_WAITING = 1_048_576
/**
 * Octets that a pipe takes whole (PIPE_BUF, pipe(7)): several processes write to one log, and no
 * line of one may be cut by a line of
 * another. A longer line can be.
 */
const MOST_TOGETHER = 4_096
/** Pause before a full pipe is tried again, in milliseconds. */
const AGAIN = 10

/**
 * Writes whole lines to a descriptor at once, without ever waiting for its reader. What a full pipe does not take (its
 * writer may have made it non-blocking) is kept and tried again, in order, up to a bound. A reader
 * that is gone for good
 * loses everything: a login must not fail for a log.
 */
export class LineWriter {
  readonly #write: WriteOctets
  #waiting: Buffer[] = []
  #waitingOctets = 0
  #lost = 0
  #timer: NodeJS.Timeout | undefined
  #isDue = false

  constructor(write: WriteOctets) {
    this.#write = write
  }

  /** Takes one line, its LF included, and writes it. */
  line(text: string): void {
    // While something waits, its timer is at it; a try for every further line would be a system call for nothing.
    if (this.#take(text) && this.#timer === undefined) this.flush()
  }

  /** As `line`, written together with everything else that this turn of the event loop has to say. */
  lineOfTurn(text: string): void {
    if (!this.#take(text) || this.#timer !== undefined || this.#isDue) return
    this.#isDue = true
    setImmediate(() => {
      this.#isDue = false
      if (this.#timer === undefined) this.flush()
    })
  }

  /** False if there is no room for the line. */
  #take(text: string): boolean {
    const octets = Buffer.from(text)
    if (this.#waitingOctets + octets.length > MAX_WAITING) {
      this.#lost += 1
      return false
    }
    if (this.#lost > 0) {
      this.#keep(Buffer.from(`log: ${this.#lost} lines lost: the reader of the log is too slow\n`))
      this.#lost = 0
    }
    this.#keep(octets)
    return true
  }

  /** Writes what waits, as far as the reader lets us. */
  flush(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (this.#waiting.length === 0) return
    let octets: Buffer = NOTHING
    let written = 0
    try {
      while (written < this.#waiting.length) {
        const count = linesTogether(this.#waiting, written)
        const [first = NOTHING] = this.#waiting.slice(written, written + count)
        octets = count === 1 ? first : Buffer.concat(this.#waiting.slice(written, written + count))
        written += count
        while (octets.length > 0) octets = octets.subarray(this.#write(octets))
      }
      this.#waiting = []
    } catch (error) {
      const isFull = errorCodeOf(error) === 'EAGAIN'
      this.#waiting = isFull ? [octets, ...this.#waiting.slice(written)] : []
      if (isFull) this.#timer = setTimeout(() => this.flush(), AGAIN).unref()
    }
    this.#waitingOctets = this.#waiting.reduce((sum, line) => sum + line.length, 0)
  }

  #keep(octets: Buffer): void {
    this.#waiting.push(octets)
    this.#waitingOctets += octets.length
  }
}

const NOTHING: Buffer = Buffer.alloc(0)

/** How many lines from the first on go out in one write: as many as fit, one at least. */
function linesTogether(lines: readonly Buffer[], from: number): number {
  let octets = lines[from]?.length ?? 0
  let count = 1
  for (let next = lines[from + 1]; next !== undefined; next = lines[from + count]) {
    octets += next.length
    if (octets > MOST_TOGETHER) break
    count += 1
  }
  return count
}
