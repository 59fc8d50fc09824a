import type { Clock } from '../../base/clock.ts'
import { type MailRefusal, refuseSession } from '../../grants/devices/mail-rules.ts'
import type { Decision, RelayGrant } from '../decision.ts'

/** Milliseconds between two queries about a grant in force, and about one that has ended. */
const [ASK_EVERY_MS, ASK_ENDED_EVERY_MS] = [30_000, 1_000]

/**
 * The grant of a session. During the session a login may renew the grant, a block may end it, and
 * the rules of its device may change. No command waits for the database: an answer applies from the
 * next command on.
 */
export class GrantTerm {
  readonly #decide: () => Promise<Decision>
  readonly #clock: Clock
  #grant: RelayGrant
  /** Why the relay is closed now. */
  #closed: string | undefined
  #asked: number

  constructor(grant: RelayGrant, decide: () => Promise<Decision>, clock: Clock) {
    this.#grant = grant
    this.#decide = decide
    this.#clock = clock
    this.#asked = clock()
  }

  /** The grant according to the latest answer. */
  get grant(): RelayGrant {
    return this.#grant
  }

  /** Checks MAIL. Undefined: the grant is in force. */
  refusal(): MailRefusal | undefined {
    const now = this.#clock()
    const { until, device } = this.#grant
    const closed = this.#closed ?? (until !== undefined && now >= until * 1000 ? 'expired' : undefined)
    if (now - this.#asked >= (closed === undefined ? ASK_EVERY_MS : ASK_ENDED_EVERY_MS)) {
      this.#asked = now
      void this.#decide().then(decision => this.#hear(decision))
    }
    return closed === undefined ? undefined : refuseSession(closed, device)
  }

  #hear(decision: Decision): void {
    if (decision.relay) {
      this.#grant = decision
      this.#closed = undefined
    } else if (decision.error === undefined) {
      this.#closed = decision.reason
      if (decision.device !== undefined) this.#grant = { ...this.#grant, device: decision.device }
    }
  }
}
