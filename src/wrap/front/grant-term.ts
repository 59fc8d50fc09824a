import type { Clock } from '../../base/clock.ts'
import type { Decision, RelayGrant } from '../decision.ts'

/** Milliseconds between two questions about a grant that has ended. */
const ASK_EVERY_MS = 1_000

/**
 * Whether the grant of a session still holds. A session may outlive its grant, and a login may have
 * renewed that since. No
 * command waits for the database: after the end the first command is refused for now, and the
 * answer is there for the next.
 */
export class GrantTerm {
  readonly #decide: () => Promise<Decision>
  readonly #clock: Clock
  #until: number | undefined
  #asked = -Infinity

  constructor({ until }: RelayGrant, decide: () => Promise<Decision>, clock: Clock) {
    this.#until = until
    this.#decide = decide
    this.#clock = clock
  }

  holds(): boolean {
    const now = this.#clock()
    if (this.#until === undefined || now < this.#until * 1000) return true
    if (now - this.#asked >= ASK_EVERY_MS) {
      this.#asked = now
      void this.#decide().then(decision => {
        if (decision.relay) this.#until = decision.until
      })
    }
    return false
  }
}
