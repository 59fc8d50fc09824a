/** Limits of sessions for one login and one owner, and how often a reached limit is logged. */

import { BoundedMap } from '../../base/bounded-map.ts'
import type { Clock } from '../../base/clock.ts'
import { loginKey } from '../../wire/login-event.ts'

/** Time after which a reached limit is logged again, for each login and owner. */
const QUIET_MS = 60_000
/** Logins and owners whose last warning is remembered. */
const MAX_WARNED = 1_000

export type ShareLimits = { readonly perLogin: number; readonly perOwner: number }

/** `isDue`: this limit was not reported for this login or owner within the last minute. */
export type ShareRefusal = { readonly reason: 'max_per_login' | 'max_per_owner'; readonly isDue: boolean }

/**
 * Counts sessions after login, by login name and by owner, so that one mailbox or one account of
 * the host cannot take the places of all others. A session keeps its share until its client's
 * connection is closed, here or by the worker, or until its worker ends.
 */
export class SessionShares<Session> {
  #limits: ShareLimits
  readonly #clock: Clock
  readonly #counts = new Map<string, number>()
  readonly #sessions = new Map<Session, readonly string[]>()
  readonly #warned = new BoundedMap<string, number>(MAX_WARNED)

  constructor(limits: ShareLimits, clock: Clock) {
    this.#limits = limits
    this.#clock = clock
  }

  /** Puts other limits in force; sessions that have their share keep it. */
  use(limits: ShareLimits): void {
    this.#limits = limits
  }

  /**
   * Takes a share for a session, in place of its earlier one. `owner` is the customer's network if
   * the server behind does not report the owner, and undefined if neither is known.
   */
  take(session: Session, login: string, owner: string | undefined): 'ok' | ShareRefusal {
    this.release(session)
    const byLogin = `login ${loginKey(login)}`
    if (this.#countOf(byLogin) >= this.#limits.perLogin) return this.#refused('max_per_login', byLogin)
    const byOwner = owner === undefined ? undefined : `owner ${owner}`
    if (byOwner !== undefined && this.#countOf(byOwner) >= this.#limits.perOwner) {
      return this.#refused('max_per_owner', byOwner)
    }
    const keys = [byLogin, ...(byOwner === undefined ? [] : [byOwner])]
    for (const key of keys) this.#counts.set(key, this.#countOf(key) + 1)
    this.#sessions.set(session, keys)
    return 'ok'
  }

  /** Gives the share of a session back; does nothing if it has none. */
  release(session: Session): void {
    for (const key of this.#sessions.get(session) ?? []) {
      const count = this.#countOf(key)
      if (count <= 1) this.#counts.delete(key)
      else this.#counts.set(key, count - 1)
    }
    this.#sessions.delete(session)
  }

  #countOf(key: string): number {
    return this.#counts.get(key) ?? 0
  }

  #refused(reason: ShareRefusal['reason'], key: string): ShareRefusal {
    const now = this.#clock()
    const last = this.#warned.get(key)
    const isDue = last === undefined || now - last >= QUIET_MS
    if (isDue) this.#warned.renew(key, now)
    return { reason, isDue }
  }
}
