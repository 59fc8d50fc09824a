import { type MailRefusal, refuseSession } from '../../grants/devices/mail-rules.ts'
import type { Decision, RelayGrant } from '../decision.ts'

/**
 * The grant of a session. During the session a login may renew the grant, a block may end it, and
 * the rules of its device may change. So `renew` looks up the grant before each MAIL. If the lookup
 * fails, the relay is closed, as for a new client.
 */
export class GrantTerm {
  readonly #decide: () => Promise<Decision>
  #grant: RelayGrant
  /** Why the relay is closed now. */
  #closed: string | undefined

  /** `decide` never rejects and has a deadline. */
  constructor(grant: RelayGrant, decide: () => Promise<Decision>) {
    this.#grant = grant
    this.#decide = decide
  }

  /** The grant according to the latest answer. */
  get grant(): RelayGrant {
    return this.#grant
  }

  /** Looks up the grant again. */
  async renew(): Promise<void> {
    const decision = await this.#decide()
    if (decision.relay) {
      this.#grant = decision
      this.#closed = undefined
    } else {
      this.#closed = decision.error === undefined ? decision.reason : 'undecided'
      if (decision.device !== undefined) this.#grant = { ...this.#grant, device: decision.device }
    }
  }

  /** Checks MAIL by the latest answer. Undefined: the grant is in force. */
  refusal(): MailRefusal | undefined {
    return this.#closed === undefined ? undefined : refuseSession(this.#closed, this.#grant.device)
  }
}
