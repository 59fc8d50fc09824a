/**
 * The decision whether an address may relay: making it, counting it, logging it, and its variables
 * for the smtpd. If there is any doubt, the relay stays closed.
 */
import { asError } from '../base/errors.ts'
import type { FieldsOf, Log } from '../base/log.ts'
import {
  type AddressRules,
  decisionOfGrant,
  type GrantDecision,
  localMinute,
  type OpenedBy,
  type RelayGrant,
} from '../grants/devices/mail-rules.ts'
import type { Ungrantable } from '../grants/never-list.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { RelayVerdict } from '../wire/usage-event.ts'

/** Queries the store. Rejects if the store gives no certain answer. */
export type AskGrant = (
  ip: IpAddress,
  signal: AbortSignal,
) => Promise<(Omit<RelayGrant, 'neighbours'> & OpenedBy) | undefined>

/** Why the relay stays closed although the store can answer. */
type RefusalReason = NonNullable<FieldsOf<'relay_refused'>['reason']>

/** Whether an address may relay. Only `relay: true` opens the relay. */
export type Decision =
  | (GrantDecision & { readonly error?: undefined })
  | {
      readonly relay: false
      /** `error`: the store gave no certain answer. `mail`: a rule for the mail refuses it. */
      readonly reason: RefusalReason | 'error' | 'mail'
      readonly error?: Error
      readonly device?: undefined
      readonly bySender?: undefined
    }

export type DecideOptions = {
  readonly ask: AskGrant
  /** Returns why an address can never be granted; undefined if it can. */
  readonly refusal: (ip: IpAddress) => Ungrantable | undefined
  /** Limit for the whole decision. */
  readonly timeoutMs: number
  readonly rules?: AddressRules
}

/** Rules that permit all mail of a granted address. The rules of its device apply nevertheless. */
const GRANT_IS_ENOUGH: AddressRules = {
  withoutDevice: 'relay',
  sharedAddresses: 'as_before',
  sharedLogins: Infinity,
  minuteOfDay: localMinute,
  placesOf: () => [],
}

/**
 * Decides about a client. Never rejects, and never exceeds `timeoutMs`. After an error the relay
 * stays closed, and mail for local domains is still accepted (spec/wrap-and-db.md §1).
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
    return decisionOfGrant(ip, grant, rules)
  } catch (error) {
    return { relay: false, reason: 'error', error: asError(error) }
  }
}

/** Runs an action with a deadline, which holds even if the action ignores its signal. */
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

/** The proxy did not name its client, so there is no address to look up. */
export const UNNAMED_CLIENT: Decision = { relay: false, reason: 'unnamed_client' }

/** A rule for the mail of a client with a grant refused it. */
export const MAIL_REFUSED: Decision = { relay: false, reason: 'mail' }

/** Reasons for which no login can open the relay. */
const NEVER_REASONS: ReadonlySet<string> = new Set(['loopback', 'never', 'proxy', 'own', 'unnamed_client'])

/** Returns the name under which the decision is counted. */
export function verdictOf(decision: Decision): RelayVerdict {
  if (decision.relay) return 'relayed'
  if (decision.error !== undefined) return 'undecided'
  return NEVER_REASONS.has(decision.reason) ? 'never' : 'refused'
}

/** Returns the variables of a decision for the smtpd: RELAYCLIENT, and those of the grant. */
export function relayVariables(decision: Decision, relayclientValue: string): Readonly<Record<string, string>> {
  return decision.relay ? { RELAYCLIENT: relayclientValue, ...grantVariables(decision) } : {}
}

/** Variables that describe the grant to the smtpd: its login and its end. */
export const grantVariables = ({ until, login }: RelayGrant): Readonly<Record<string, string>> => ({
  ...(login === undefined ? {} : { AUTHRELAY_LOGIN: login.replaceAll('\0', '') }),
  ...(until === undefined ? {} : { AUTHRELAY_UNTIL: String(until) }),
})

/** Fields that the line of every decision has. */
type ClientFields = Omit<FieldsOf<'relay_allowed'>, 'reason' | 'user' | 'until'>

/** Logs one line for a decision: `relay_allowed`, `relay_refused` or `decision_failed`. */
export function logDecision(log: Log, decision: Decision, fields: ClientFields): void {
  if (decision.relay) log.info('relay_allowed', { ...fields, user: decision.login, until: decision.until })
  else if (decision.error === undefined) log.info('relay_refused', { ...fields, ...causeOf(decision) })
  else log.error('decision_failed', { ...fields, relay: false, reason: decision.error })
}

/** Logs one line for a client whose relay a rule or the environment opened without a query. */
export function logPreset(log: Log, fields: ClientFields): void {
  log.info('relay_allowed', { ...fields, reason: 'preset' })
}

/**
 * Logs a decision for a mail server that queries every client and writes its own log. A refusal is
 * logged at level debug only.
 */
export function logAnswer(log: Log, decision: Decision, fields: ClientFields): void {
  if (decision.relay || decision.error !== undefined) logDecision(log, decision, fields)
  else log.debug('relay_refused', { ...fields, ...causeOf(decision) })
}

const causeOf = ({ reason, device }: Extract<Decision, { relay: false }>) => ({
  reason: reason === 'error' || reason === 'mail' ? undefined : reason,
  device: device?.name,
})
