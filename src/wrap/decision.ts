import { asError } from '../base/errors.ts'
import type { FieldsOf, Log } from '../base/log.ts'
import { type AddressRules, closedBy, localMinute, type OpenedBy, sharersOf } from '../grants/devices/mail-rules.ts'
import type { GrantedDevice } from '../grants/grant-store.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { RelayVerdict } from '../wire/usage-event.ts'

/** A sure yes of the store. `until`: Unix seconds, undefined for an allowance without end. */
export type RelayGrant = {
  readonly until: number | undefined
  readonly login: string | undefined
  /** The device of the login, whose rules hold for its mail. */
  readonly device?: GrantedDevice | undefined
  /** The logins of a shared address; undefined: it is not shared. */
  readonly sharedBy?: readonly string[] | undefined
}

/** Asks the store. Rejects when there is no sure answer. */
export type AskGrant = (
  ip: IpAddress,
  signal: AbortSignal,
) => Promise<(Omit<RelayGrant, 'sharedBy'> & OpenedBy) | undefined>

/** May the address relay? Only `relay: true` opens anything. */
export type Decision =
  | ({ readonly relay: true } & RelayGrant)
  | {
      readonly relay: false
      readonly reason: string
      readonly error?: Error
      /** The device whose rule keeps the relay closed. */
      readonly device?: GrantedDevice | undefined
    }

export type DecideOptions = {
  readonly ask: AskGrant
  /** Why an address can never be granted; undefined if it can. */
  readonly refusal: (ip: IpAddress) => string | undefined
  /** For the whole question. */
  readonly timeoutMs: number
  readonly rules?: AddressRules
}

/** A grant is enough; the rules of devices hold all the same. */
const GRANT_IS_ENOUGH: AddressRules = {
  withoutDevice: 'relay',
  sharedAddresses: 'as_before',
  sharedLogins: Infinity,
  minuteOfDay: localMinute,
  placesOf: () => [],
}

/**
 * Decides about a client. Never rejects and never takes longer than the limit: whatever goes wrong,
 * the relay stays closed and mail for
 * local domains flows (spec/wrap-and-db.md §1).
 */
export async function decide(
  ip: IpAddress | undefined,
  { ask, refusal, timeoutMs, rules = GRANT_IS_ENOUGH }: DecideOptions,
): Promise<Decision> {
  if (ip === undefined) return { relay: false, reason: 'no_address' }
  try {
    const never = refusal(ip)
    if (never !== undefined) return { relay: false, reason: never }
    const grant = await within(timeoutMs, signal => ask(ip, signal))
    if (grant === undefined) return { relay: false, reason: 'no_grant' }
    const closed = closedBy(ip, grant, rules)
    const { logins: _, ...opened } = grant
    if (closed !== undefined) return { relay: false, reason: closed, device: opened.device }
    const sharedBy = sharersOf(ip, grant, rules)
    return sharedBy === undefined ? { relay: true, ...opened } : { relay: true, ...opened, sharedBy }
  } catch (error) {
    return { relay: false, reason: 'error', error: asError(error) }
  }
}

/** The deadline counts even if whoever is asked does not listen to its signal. */
async function within<T>(timeoutMs: number, action: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController()
  const { promise: deadline, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(() => {
    const error = new Error(`no answer within ${timeoutMs} ms`)
    reject(error)
    controller.abort(error)
  }, timeoutMs)
  try {
    return await Promise.race([action(controller.signal), deadline])
  } finally {
    clearTimeout(timer)
  }
}

/** The proxy did not say who its client is, so that there is no address to ask about. */
export const UNNAMED_CLIENT: Decision = { relay: false, reason: 'unnamed_client' }

/** Reasons for which no login opens the relay. */
const NEVER_REASONS: ReadonlySet<string> = new Set(['loopback', 'never', 'proxy', 'own', 'unnamed_client'])

/** What the decision is counted as. */
export function verdictOf(decision: Decision): RelayVerdict {
  if (decision.relay) return 'relayed'
  if (decision.error !== undefined) return 'undecided'
  return NEVER_REASONS.has(decision.reason) ? 'never' : 'refused'
}

/**
 * The decision as variables of the smtpd. An existing RELAYCLIENT never gets here: it is left
 * alone.
 */
export function relayVariables(decision: Decision, relayclientValue: string): Readonly<Record<string, string>> {
  return decision.relay ? { RELAYCLIENT: relayclientValue, ...grantVariables(decision) } : {}
}

/**
 * What the smtpd learns of the grant beside RELAYCLIENT: whose mail this is, and how long the
 * address may relay.
 */
export const grantVariables = ({ until, login }: RelayGrant): Readonly<Record<string, string>> => ({
  ...(login === undefined ? {} : { AUTHRELAY_LOGIN: login.replaceAll('\0', '') }),
  ...(until === undefined ? {} : { AUTHRELAY_UNTIL: String(until) }),
})

/** Logs one line for a decision: `relay_allowed`, `relay_refused` or `decision_failed`. */
export function logDecision(log: Log, decision: Decision, fields: FieldsOf<'relay_refused'>): void {
  if (decision.relay) log.info('relay_allowed', { ...fields, user: decision.login, until: decision.until })
  else if (decision.error === undefined) log.info('relay_refused', { ...fields, reason: decision.reason })
  else log.error('decision_failed', { ...fields, relay: false, reason: decision.error })
}

/**
 * The same for a mail server that asks about every client and writes its own log: a stranger is
 * worth a line at level debug only.
 */
export function logAnswer(log: Log, decision: Decision, fields: FieldsOf<'relay_refused'>): void {
  if (decision.relay || decision.error !== undefined) logDecision(log, decision, fields)
  else log.debug('relay_refused', { ...fields, reason: decision.reason })
}
