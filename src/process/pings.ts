/** Time between two pings, and the number of unanswered ones after which a process counts as hung: at most 14 s. */
const INTERVAL_MS = 3_500
const MAX_UNANSWERED = 3

/**
 * Notices a process that is alive but does not answer: it is stopped, or its event loop stands still.
 *
 * Pings are counted, not seconds, so that an observer that stood still itself blames nobody. They
 * begin with the first sign of
 * life, because a program that loads cannot answer.
 */
export class Pings {
  readonly #send: () => void
  readonly #hung: () => void
  #unanswered = 0
  #timer: NodeJS.Timeout | undefined
  #isEnded = false

  /** `send` sends a ping; `hung` is called once, when three of them in a row had no answer. */
  constructor(send: () => void, hung: () => void) {
    this.#send = send
    this.#hung = hung
  }

  /** The process answered, or said something else. */
  alive(): void {
    this.#unanswered = 0
    if (this.#timer === undefined && !this.#isEnded) this.#timer = setInterval(() => this.#tick(), INTERVAL_MS).unref()
  }

  end(): void {
    this.#isEnded = true
    clearInterval(this.#timer)
  }

  #tick(): void {
    if (this.#unanswered < MAX_UNANSWERED) {
      this.#unanswered += 1
      this.#send()
      return
    }
    // Answers that have arrived are read before this runs.
    setImmediate(() => {
      if (this.#isEnded || this.#unanswered < MAX_UNANSWERED) return
      this.end()
      this.#hung()
    })
  }
}
