/** A login on its way through the queue, and the errors of the store that concern a few logins. */

import type { Clock } from '../../base/clock.ts'
import { errorCodeOf } from '../../base/errors.ts'
import type { Login } from '../../grants/grant-store.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import type { LoginAnswer, LoginEvent } from '../../wire/login-event.ts'
import type { Source } from '../counters.ts'

/** A login that a source reported. */
export type ReportedLogin = {
  readonly event: LoginEvent
  readonly source: Source
  /** Time of the login in milliseconds, if it is before now: a line that is read late. */
  readonly at?: number
  /** Called once with the answer for the announcer: `committed` only after the commit. */
  readonly answer?: (answer: LoginAnswer) => void
  /** Called once when the login is stored, refused, or replaced by a newer one. */
  readonly settled?: () => void
}

/** A login in the queue. */
export type Entry = {
  readonly reported: ReportedLogin
  readonly ip: IpAddress
  /** Arrival number. It keeps the order across retries. */
  readonly place: number
  /** Time of arrival by the monotonic clock. */
  readonly arrivedAt: number
  /** The announcer got its answer. */
  answered: boolean
  /** Kept over an outage. */
  queued: boolean
}

/** A login that waited longer than this is stored with its own time, not the database's. */
const OWN_TIME_AFTER_MS = 1000

/**
 * The login with its time for the store. The time is counted back from now by a clock that does not
 * step, so that a step of the machine's clock moves no login.
 */
export function loginOf(
  { reported: { event, at }, arrivedAt, queued }: Entry,
  { clock, monotonic }: { readonly clock: Clock; readonly monotonic: Clock },
): Login {
  const age = monotonic() - arrivedAt
  if (at === undefined && !queued && age < OWN_TIME_AFTER_MS) return { event, at: null }
  const own = clock() - age
  return { event, at: new Date(at === undefined ? own : Math.min(at, own)) }
}

/** The fields of a login for the log. */
export const describe = ({ event: { id, ip, user, daemon }, source }: ReportedLogin) => ({
  ...{ id, ip, user, daemon, source },
})

/**
 * True if the data of a login are invalid (SQLSTATE classes 22, data exception, and 23, integrity
 * constraint violation), so that the database will never take them. Every other error, also a
 * missing table or right, is an outage that an administrator can end.
 */
export const neverHelps = (error: unknown): boolean => /^2[23]/.test(errorCodeOf(error) ?? '')

/**
 * Another transaction has locked what this one needs (lock_not_available, query_canceled), so the
 * statement had no effect.
 */
export const meetsLock = (error: unknown): boolean => /^(55P03|57014)$/.test(errorCodeOf(error) ?? '')
