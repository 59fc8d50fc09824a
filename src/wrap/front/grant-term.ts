import { decisionOfSender, type MailRefusal, type RelayGrant, refuseSession } from '../../grants/devices/mail-rules.ts'
import type { Decision } from '../decision.ts'

/**
 * The grant of a session. During the session a login may renew the grant, a block may end it, and
 * the rules of its device may change. So `renew` looks up the grant before each MAIL. If the lookup
 * fails, the relay is closed, as for a new client.
 */
export class GrantTerm {
  readonly #decide: () => Promise<Decision>
  #grant: RelayGrant
  /** The latest answer. */
  #decision: Decision

  /** `decide` never rejects and has a deadline. */
  constructor(grant: RelayGrant, decide: () => Promise<Decision>) {
    this.#grant = grant
    this.#decision = { relay: true, ...grant }
    this.#decide = decide
  }

  /** The grant according to the latest answer. */
  get grant(): RelayGrant {
    return this.#grant
  }

  /** Looks up the grant again. */
  async renew(): Promise<void> {
    const decision = await this.#decide()
    this.#decision = decision
    if (decision.relay) this.#grant = decision
    else if (decision.device !== undefined) this.#grant = { ...this.#grant, device: decision.device }
  }

  /** The grant for the mail of a sender, or the refusal of MAIL, by the latest answer. */
  ofSender(sender: string, senderDomains: readonly string[]): RelayGrant | MailRefusal {
    const decision = decisionOfSender(this.#decision, sender, senderDomains)
    if (decision.relay) return decision
    return refuseSession(decision.error === undefined ? decision.reason : 'undecided', this.#grant.device)
  }
}
