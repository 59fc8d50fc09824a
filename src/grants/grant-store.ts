/** Grants as values, and the interfaces of their writer, reader and administrator. */
import * as v from 'valibot'
import { type IpAddress, type Network, parseNetwork } from '../wire/ip-address.ts'
import type { GRANT_REFUSALS, LoginEvent } from '../wire/login-event.ts'
import type { DeviceMessages, RelayTally } from '../wire/usage-event.ts'

/** inet and cidr as PostgreSQL prints them. */
export const networkColumn = v.pipe(
  v.string(),
  v.rawTransform<string, Network>(({ dataset, addIssue, NEVER }) => {
    const parsed = parseNetwork(dataset.value)
    if (parsed !== undefined) return parsed
    addIssue({ message: `not a network: ${dataset.value}` })
    return NEVER
  }),
)

/** Time by which the last login of a row may lie in the future, because clocks of hosts differ. */
const CLOCK_TOLERANCE = "interval '60 seconds'"

/**
 * SQL condition: the last login of a row is past. A row whose login lies further in the future was
 * written before the clock was set back, so it does not count.
 */
export const isPastLogin = (lastLogin: string, now: string): string => `${lastLogin} <= ${now} + ${CLOCK_TOLERANCE}`

/** Why a login does not open the relay. */
export type GrantRefusal = (typeof GRANT_REFUSALS)[number]

/**
 * The result of a login: the address is granted until then (Unix seconds, committed), or it is not.
 */
export type GrantOutcome =
  | { readonly kind: 'granted'; readonly until: number }
  | { readonly kind: 'refused'; readonly reason: GrantRefusal }

/**
 * A login and when it happened by this host's clock; null means now. A time in the future counts
 * as now. The store counts back from the database's now, so the two clocks may differ.
 */
export type Login = { readonly event: LoginEvent; readonly at: Date | null }

/**
 * A usage event as it is stored: RELAYCLIENT was set, or a policy request got a positive answer.
 * `at`: null means now, and a time in the future counts as now, by the database's clock.
 */
export type UsageRecord = {
  readonly ip: IpAddress
  /** The service: `wrap`, `policy`, `socketmap`, … At most 32 characters. */
  readonly service: string
  readonly at: Date | null
}

/** A grant that covers the address. */
export type Grant = {
  readonly ip: IpAddress
  /** By a login, or by the administrator's allowance. */
  readonly source: 'login' | 'allowance'
  /** The login; null for an allowance, and where names are not kept. */
  readonly login: string | null
  /** When it ends (exactly then it has ended); null: without end. */
  readonly until: Date | null
  /** Seconds since the last login, or since the allowance was made. */
  readonly age: number
  /**
   * Seconds to its end, by the database's clock, at the moment of the answer; null: without end.
   */
  readonly secondsLeft: number | null
  /** The device of the login; null: it has none. */
  readonly device: GrantedDevice | null
  /**
   * The logins from its network within the time of a grant, without blocked ones, if there was more
   * than one.
   */
  readonly logins: readonly string[]
  /** Those of `logins` that belong to the present grant, which no command has removed since. */
  readonly granted: readonly string[]
  /** The devices of `logins`. */
  readonly devices: readonly LoginDevice[]
}

/** A login, as a key, and its device. */
export type LoginDevice = { readonly login: string; readonly device: GrantedDevice }

/**
 * The rules of a device, as the gate enforces them. Empty lists and limits of 0 leave out their
 * rule.
 */
export type GrantedDevice = {
  readonly name: string
  readonly senders: readonly string[]
  readonly recipientDomains: readonly string[]
  readonly messagesPerHour: number
  readonly messagesPerDay: number
  readonly recipientsPerHour: number
  readonly recipientsPerDay: number
  readonly lineEndings: 'strict' | 'repair'
  /**
   * Minutes of the local day between which it may send; `from` may lie behind `to`. Null: always.
   */
  readonly hours: { readonly from: number; readonly to: number } | null
  /** The day of its end in UTC, YYYY-MM-DD; null: without end. */
  readonly until: string | null
  /** It has ended. */
  readonly ended: boolean
  /** Countries and AS numbers besides its networks. */
  readonly places: readonly string[]
  /** The client is in none of its networks. */
  readonly elsewhere: boolean
}

/** A network that may relay now. `until` null: without end. */
export type CurrentGrant = Pick<Grant, 'source' | 'login' | 'until' | 'secondsLeft' | 'logins'> & {
  readonly network: Network
  readonly hasDevice: boolean
}

/** One row of `auth-relay show`. */
export type GrantRow = {
  readonly network: Network
  readonly until: Date
  readonly user: string | null
  readonly daemon: string
  readonly tls: boolean | null
  readonly first: Date
  readonly last: Date
  readonly logins: number
  /** The host whose authd stored the last login; null: stored by an older release. */
  readonly host: string | null
}

/** Removed by a sweep. */
export type Swept = { readonly grants: number }

/** authd's side: role `pop3authd`. Errors of the database are those of src/database/errors.ts. */
export interface GrantWriter {
  /**
   * One transaction for the whole batch, one outcome per login in the same order. When it resolves,
   * every grant in it is committed. Rejects as a whole: then nothing was done, or (OutcomeUnknown)
   * perhaps everything; recording again does no harm.
   */
  record(logins: readonly Login[], options?: QueryOptions): Promise<readonly GrantOutcome[]>
  /** Stores usage events; never decides anything. */
  recordUsageEvents(events: readonly UsageRecord[], options?: QueryOptions): Promise<void>
  /**
   * Adds messages to the hours of their devices; never decides anything. A device that does not
   * exist is ignored. After OutcomeUnknown, recording again may count twice.
   */
  recordDeviceMessages(messages: readonly DeviceMessages[], options?: QueryOptions): Promise<void>
  /**
   * Adds the counts of this host's gate to its minutes. Its sample of refused addresses replaces
   * the sample before. Never decides anything. After OutcomeUnknown, recording again may count
   * twice.
   */
  recordTallies(tallies: readonly RelayTally[], options?: QueryOptions): Promise<void>
  /**
   * Publishes the ungrantable addresses of this host's policy for the views of mail servers. Called
   * repeatedly, because addresses of the host change.
   */
  publishUngrantable(options?: QueryOptions): Promise<void>
  /**
   * Removes what has ended. Housekeeping only: expiry is decided at lookup. Reads the table in
   * parts, each in its own transaction, and waits for no login. After an error the next call
   * continues with the part that failed.
   */
  sweep(options?: QueryOptions & { readonly now?: Date }): Promise<Swept>
  /**
   * Makes the coming days' partitions of the two histories and drops those older than `keepDays`,
   * and as old tallies. Call it at start and daily.
   */
  keepHistory(keepDays: number, options?: QueryOptions & { readonly now?: Date }): Promise<void>
}

/** The gate's side: role `authwrap`. */
export interface GrantReader {
  /**
   * The grant that covers the address now. In every other case the result is undefined or an error.
   */
  lookup(ip: IpAddress, options?: QueryOptions): Promise<Grant | undefined>
  /**
   * The networks that may relay now, for tables of mail servers without lookups. A network is
   * listed without its ungrantable parts, so that one grant may be several rows. `onProof`: see
   * RunOptions.
   */
  current(options?: QueryOptions & { readonly onProof?: (provenAt: number) => void }): Promise<readonly CurrentGrant[]>
}

/** A finding about an address at a time. The first finding that permits or refuses decides. */
export type Rule = RuleFacts & {
  readonly rule:
    | 'never-granted'
    | 'block'
    | 'allowance'
    | 'grant'
    | 'login'
    | 'refused-login'
    /**
     * The last login that was granted does not count now, because its grant ended or was removed.
     */
    | 'expired'
    | 'never-seen'
  readonly relay: boolean
  readonly since: Date | null
  readonly until: Date | null
}

/** The facts of a rule. Null: it has none. */
export type RuleFacts = {
  /** The network of a block or an allowance, or the address that is explained. */
  readonly network: string | null
  /** The login that opened the relay, or that is blocked. */
  readonly login: string | null
  /** The operator who made a block or an allowance. */
  readonly owner: string | null
  /** The reason of a block, an allowance, a refused login, or an address that is never granted. */
  readonly reason: string | null
  /** The source of a login, its method, its session and its host. */
  readonly daemon: string | null
  readonly method: string | null
  readonly session: string | null
  readonly host: string | null
}

export type Explanation = {
  readonly ip: IpAddress
  readonly at: Date
  readonly relay: boolean
  /** The rule that decided. */
  readonly decided: Rule
  /** Everything that is known, the deciding rule first. */
  readonly rules: readonly Rule[]
  /**
   * The last mail from the address that a gate let through before that time; null: none is known.
   */
  readonly lastRelay: LastRelay | null
}

/** `host`: that of the gate; null: stored by an older release. */
export type LastRelay = { readonly at: Date; readonly service: string; readonly host: string | null }

/** An allowance or a block as the administrator gave it. `until` null: without end. */
export type AdminRule = { readonly until: Date | null; readonly reason: string; readonly owner: string }

export type BlockTarget =
  | { readonly kind: 'network'; readonly network: Network }
  | { readonly kind: 'login'; readonly login: string }

export type BlockRow = AdminRule & { readonly target: BlockTarget; readonly since: Date }
export type AllowanceRow = AdminRule & { readonly network: Network; readonly since: Date }

/** Duration: seconds from now by the database's clock, or null: without end. */
export type AdminRuleRequest = {
  readonly forSeconds: number | null
  readonly reason: string
  readonly owner: string
}

/** The administrator's side; works with the writer's role. */
export interface GrantAdmin {
  /** Live grants, newest login first. */
  list(options?: QueryOptions & { readonly limit?: number }): Promise<readonly GrantRow[]>
  /**
   * May relay, then or now, and why. The past is answered from the history as far as it is kept.
   */
  explain(ip: IpAddress, at: Date | null, options?: QueryOptions): Promise<Explanation>
  /**
   * Lets a network relay without a login, except its parts that are never granted. Refused for
   * networks that are never granted.
   */
  allow(
    network: Network,
    request: AdminRuleRequest,
    options?: QueryOptions,
  ): Promise<
    { readonly refused: GrantRefusal } | { readonly until: Date | null; readonly exceptions: readonly Network[] }
  >
  /** Ends an allowance; how many there were. */
  disallow(network: Network, options?: QueryOptions): Promise<number>
  /**
   * Removes the grants of a network or login and prevents new ones until the block ends. Returns
   * the number of removed grants.
   */
  block(
    target: BlockTarget,
    request: AdminRuleRequest,
    options?: QueryOptions,
  ): Promise<{ readonly removed: number; readonly until: Date | null }>
  /** Whether a login of that name is in the history, has a grant, or belongs to a device. */
  isKnownLogin(login: string, options?: QueryOptions): Promise<boolean>
  /** Ends a block; how many there were. */
  unblock(target: BlockTarget, options?: QueryOptions): Promise<number>
  blocks(options?: QueryOptions): Promise<readonly BlockRow[]>
  allowances(options?: QueryOptions): Promise<readonly AllowanceRow[]>
}

/** `signal`: the deadline; passing it rejects with OutcomeUnknown at once. */
export type QueryOptions = { readonly signal?: AbortSignal }
