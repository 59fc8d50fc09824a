/** The verb `explain`, and its sentences about a decision of the gate. */
import { resolve } from 'node:path'
import { messageOf, UsageFault } from '../../../base/errors.ts'
import {
  addressRulesOf,
  checkEnvelope,
  decisionOfGrant,
  decisionOfSender,
  formatHours,
  type MailRefusal,
  neighboursOf,
} from '../../../grants/devices/mail-rules.ts'
import { createGrantAdmin } from '../../../grants/grant-admin.ts'
import { policyOf } from '../../../grants/grant-policy.ts'
import { createGrantReader } from '../../../grants/grant-reader.ts'
import type { Explanation, Grant, GrantedDevice, LastRelay, Rule } from '../../../grants/grant-store.ts'
import { formatSocketAddress } from '../../../process/socket-address.ts'
import { formatDuration, parseDuration } from '../../../settings/duration.ts'
import type { Settings } from '../../../settings/settings.ts'
import type { IpAddress } from '../../../wire/ip-address.ts'
import {
  CLIENT_FAULT_NAMES,
  CLIENT_FAULTS,
  type ClientFaults,
  type DeviceCounts,
  formatCountsQuery,
  formatFaultsQuery,
  parseClientFaults,
  parseDeviceCounts,
} from '../../../wire/services/gate-report.ts'
import { readAddress } from '../../grant-target.ts'
import { queryLine } from '../../query-line.ts'
import { withSiteDatabase } from '../../site-database.ts'
import { formatMoment, parseMoment } from '../../text/moment.ts'
import { printable, styleFor } from '../../text/terminal.ts'
import type { Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'

/**
 * `auth-relay explain`: shows whether mail from an address is relayed, now or at an earlier time,
 * and which rule decides.
 */
export const explain: Verb = (program, surroundings, choose) => {
  const { print, isTerminal, environment } = surroundings
  withConfigOption(program.command('explain'))
    .description('explain whether mail from an address is relayed: by which login and until when, or why not')
    .argument('<address>', 'numeric address')
    .option('--at <time>', "a past time: '2026-11-22 18:24', 18:24, 2026-11-22T18:24:58Z, or 2h for two hours ago")
    .option('--sender <address>', "envelope sender to check as the gate does; '' is the null sender")
    .option('--to <address>', 'envelope recipient to check')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay explain 192.0.2.7
  auth-relay explain 192.0.2.7 --at '2026-11-22 18:24'
  auth-relay explain 192.0.2.7 --sender scan@example.org --to bob@partner.example

For the present, the output also names the device of the login with its rules, and the other
logins of the address. The gate of this host reports how much of the device's limits is left.
Each gate counts separately (wrap.query_listen). Behind wrap.front the output also has the
faults of the client that this gate saw since its start, for example AUTH, and what to do.
Exit status 0 if mail would be relayed, 1 if not.`,
    )
    .action((address: string, options: Options) => {
      if (options.at !== undefined && (options.sender ?? options.to) !== undefined)
        throw new UsageFault('--sender and --to are checked with the present rules: leave out --at')
      const ip = readAddress(address)
      const at = readMoment(options.at)
      choose({
        kind: 'command',
        run: () =>
          withSiteDatabase(resolve(options.config), surroundings, async (database, settings) => {
            const policy = policyOf(settings)
            const explanation = await createGrantAdmin(database, policy).explain(ip, at)
            const decided =
              at === null && explanation.relay
                ? explainMail(await createGrantReader(database, policy).lookup(ip), ip, settings, options)
                : undefined
            const mail = decided && withLimits(decided, await limitsLeft(decided.device, settings))
            const { exp_time } = settings.grants
            const known = { mail, faults: at === null ? await faultsOf(ip, settings) : {} }
            print(
              options.json === true
                ? `${JSON.stringify(jsonOf(explanation, known))}\n`
                : formatExplanation(explanation, at !== null, exp_time, styleFor(isTerminal, environment), known),
            )
            return explanation.relay && mail?.refused !== true ? 0 : 1
          }),
      })
    })
}

type Options = { config: string; at?: string; sender?: string; to?: string; json?: true }

/** The decision of the gate about mail from an address that has a grant. */
type MailExplanation = {
  readonly login: string | null
  /** Null: the login has none. */
  readonly device: GrantedDevice | null
  /** The logins of a shared address; empty if it is not shared. */
  readonly sharedBy: readonly string[]
  /** Country and AS number of the address, as far as files of this host contain them. */
  readonly places: readonly string[]
  /** The rule that keeps the relay closed; null: none. */
  readonly closed: string | null
  /** The rule of the last login that closes the address for all other senders; null: none. */
  readonly closedForOthers: string | null
  /** The refusal of each requested part; null: the part is accepted. */
  readonly sender?: MailRefusal | null
  readonly recipient?: MailRefusal | null
  readonly refused: boolean
}

/** The limits of a device, each with the unit that it counts. */
const limitsOf = (device: GrantedDevice) =>
  [
    { name: 'messagesPerHour', limit: device.messagesPerHour, what: 'messages an hour' },
    { name: 'messagesPerDay', limit: device.messagesPerDay, what: 'messages a day' },
    { name: 'recipientsPerHour', limit: device.recipientsPerHour, what: 'recipients an hour' },
    { name: 'recipientsPerDay', limit: device.recipientsPerDay, what: 'recipients a day' },
  ] as const

/**
 * The rest of each limit, or the reason why the rest is unknown. Empty for a device without limits.
 */
type LimitsLeft = { readonly left?: Partial<DeviceCounts>; readonly leftUnknown?: string }

/** Milliseconds. */
const GATE_DEADLINE_MS = 3000

/** A limit without a rest refuses the next mail. */
export const withLimits = (mail: MailExplanation, limits: LimitsLeft): MailExplanation & LimitsLeft => ({
  ...mail,
  ...limits,
  refused: mail.refused || isExhausted(limits),
})

const isExhausted = ({ left = {} }: LimitsLeft): boolean => Object.values(left).includes(0)

/** Queries the gate of this host for its counts of a device. */
export async function limitsLeft(device: GrantedDevice | null, { wrap }: Pick<Settings, 'wrap'>): Promise<LimitsLeft> {
  const limits = device === null ? [] : limitsOf(device).filter(({ limit }) => limit > 0)
  if (device === null || limits.length === 0) return {}
  const [address] = wrap.query_listen
  if (address === undefined) return { leftUnknown: 'set wrap.query_listen, so that explain can query the gate' }
  try {
    const counts = parseDeviceCounts(await queryLine(address, formatCountsQuery(device.name), GATE_DEADLINE_MS))
    if (counts === undefined) return { leftUnknown: `${formatSocketAddress(address)} gave no counts` }
    return { left: Object.fromEntries(limits.map(({ name, limit }) => [name, Math.max(0, limit - counts[name])])) }
  } catch (error) {
    return { leftUnknown: `the gate at ${formatSocketAddress(address)} does not answer: ${messageOf(error)}` }
  }
}

/**
 * Queries the gate of this host for the faults of a client. Empty: the gate has no front, does not
 * answer, or has seen none since its start.
 */
export async function faultsOf(ip: IpAddress, { wrap }: Pick<Settings, 'wrap'>): Promise<ClientFaults> {
  const [address] = wrap.query_listen
  if (address === undefined || !wrap.front) return {}
  try {
    return parseClientFaults(await queryLine(address, formatFaultsQuery(ip), GATE_DEADLINE_MS)) ?? {}
  } catch {
    return {}
  }
}

const faultsInWords = (faults: ClientFaults): readonly string[] =>
  CLIENT_FAULT_NAMES.flatMap(name => {
    const at = faults[name]
    const { text, action } = CLIENT_FAULTS[name]
    if (at === undefined) return []
    return [`Fault of the client: ${text}, last at ${formatMoment(new Date(at * 1000))}`, `What to do: ${action}`]
  })

/** Decides by the functions of the gate, and adds the rules of the last login to a closed relay. */
export function explainMail(
  grant: Grant | undefined,
  ip: IpAddress,
  settings: Pick<Settings, 'wrap' | 'grants'>,
  { sender, to }: Pick<Options, 'sender' | 'to'>,
): MailExplanation | undefined {
  if (grant === undefined) return undefined
  const addressRules = addressRulesOf(settings)
  const { logins, granted, devices } = grant
  const opened = { login: grant.login ?? undefined, device: grant.device ?? undefined, logins, granted, devices }
  const { sender_binding, sender_domains, recipient_domains, policy_listen, query_listen } = settings.wrap
  const ofAddress = decisionOfGrant(ip, { until: undefined, ...opened }, addressRules)
  // Only these services decide about an address by the sender.
  const isBySender = policy_listen.length + query_listen.length > 0
  const decision = isBySender ? decisionOfSender(ofAddress, sender ?? '', sender_domains) : ofAddress
  const neighbours = neighboursOf(ip, opened, addressRules)
  const site = {
    senderBinding: sender_binding,
    senderDomains: sender_domains,
    recipientDomains: recipient_domains,
    onForeignSender: () => {},
  }
  const { login, device, neighbours: others } = decision.relay ? decision : { ...opened, neighbours }
  const answer = checkEnvelope({ ...site, login, device, neighbours: others }, { sender, recipient: to })
  const closed = ofAddress.relay ? null : ofAddress.reason
  return {
    login: answer.rules.login ?? null,
    device: answer.rules.device ?? null,
    sharedBy: neighbours?.isShared === true ? neighbours.logins : [],
    places: addressRules.placesOf(ip),
    closed: decision.relay ? null : closed,
    closedForOthers: decision.relay ? closed : null,
    ...(sender === undefined ? {} : { sender: answer.sender ?? null }),
    ...(to === undefined ? {} : { recipient: answer.recipient ?? null }),
    refused: !decision.relay || answer.sender !== undefined || answer.recipient !== undefined,
  }
}

/** The rules for mail in words, one line each. */
function mailInWords(mail: MailExplanation & LimitsLeft): readonly string[] {
  const { device, sharedBy, places, closed, closedForOthers, sender, recipient, login, left, leftUnknown } = mail
  const lines: string[] = []
  if (device !== null) {
    const limits = limitsOf(device).filter(({ limit }) => limit > 0)
    const rules = [
      device.senders.length > 0 ? `sends as ${device.senders.join(', ')}` : '',
      device.recipientDomains.length > 0 ? `to ${device.recipientDomains.join(', ')}` : '',
      ...limits.map(({ limit, what }) => `at most ${limit} ${what}`),
      device.hours === null ? '' : `from ${formatHours(device.hours)}`,
    ].filter(text => text !== '')
    lines.push(`Device: ${device.name}${rules.length > 0 ? `, ${rules.join('; ')}` : ''}`)
    if (left !== undefined)
      lines.push(
        `Left at this gate: ${limits.map(({ name, limit, what }) => `${left[name]} of ${limit} ${what}`).join(', ')}`,
      )
    if (leftUnknown !== undefined) lines.push(`Left of the limits: unknown; ${leftUnknown}`)
  } else if (login !== null) lines.push('Device: none; the rules of [wrap] hold')
  if (places.length > 0) lines.push(`Place: ${places.join(', ')}`)
  if (sharedBy.length > 0) lines.push(`Shared address: ${sharedBy.join(', ')}`)
  if (closed !== null) lines.push(`Closed by: ${closed}`, `What to do: ${remedyFor(closed, mail)}`)
  if (closedForOthers !== null)
    lines.push(
      `Only the policy service and the query service relay this sender. Other mail: closed by ${closedForOthers}`,
    )
  if (sender !== undefined) lines.push(`Sender: ${sender === null ? 'may pass' : `${sender.reply} (${sender.rule})`}`)
  if (recipient !== undefined)
    lines.push(`Recipient: ${recipient === null ? 'may pass' : `${recipient.reply} (${recipient.rule})`}`)
  return lines.map(printable)
}

/** The command or setting that opens the relay again after a rule of closedBy. */
function remedyFor(closed: string, { device, login }: MailExplanation): string {
  const change = `auth-relay device set ${device?.name ?? 'NAME'}`
  switch (closed) {
    case 'device_ended':
      return `${change} --until DATE`
    case 'device_network':
      return `${change} --from NETWORKS`
    case 'device_hours':
      return `${change} --hours HH:MM-HH:MM`
    default:
      return `auth-relay device adopt ${login ?? 'LOGIN'}, or change wrap.${closed === 'no_device' ? 'without_device' : 'shared_addresses'}`
  }
}

function readMoment(text: string | undefined): Date | null {
  if (text === undefined) return null
  const now = new Date()
  const moment = parseMoment(text, now, parseDuration)
  if (moment === undefined) {
    throw new UsageFault(`--at ${text} is not a time: write '2026-11-22 18:24', 18:24, 2026-11-22T18:24:58Z or 2h`)
  }
  if (moment > now) throw new UsageFault(`--at ${text} is in the future: future logins are unknown`)
  return moment
}

/** The answer for the envelope, and the faults of the client that the gate of this host saw. */
type KnownOfMail = {
  readonly mail?: (MailExplanation & LimitsLeft) | undefined
  readonly faults?: ClientFaults
}

/** `relay` is the answer for the address, and `mail` the answer for the envelope. */
export const jsonOf = (
  { ip, at, relay, decided, rules, lastRelay }: Explanation,
  { mail, faults = {} }: KnownOfMail = {},
) => ({
  ip,
  at: at.toISOString(),
  relay: relay && (mail?.closed ?? null) === null,
  rule: decided.rule,
  detail: detailOf(decided, at),
  until: decided.until?.toISOString() ?? null,
  rules: rules.map(rule => ({
    rule: rule.rule,
    relay: rule.relay,
    detail: detailOf(rule, at),
    since: rule.since?.toISOString() ?? null,
    until: rule.until?.toISOString() ?? null,
  })),
  lastRelay: lastRelay === null ? null : { ...lastRelay, at: lastRelay.at.toISOString() },
  ...(mail === undefined ? {} : { mail }),
  ...(Object.keys(faults).length === 0
    ? {}
    : {
        faults: Object.fromEntries(
          Object.entries(faults).map(([name, time]) => [name, new Date(time * 1000).toISOString()]),
        ),
      }),
})

/**
 * The explanation in words: the answer, the rule that gave it, the rules for mail, the remedy, and
 * all other known facts.
 */
export function formatExplanation(
  { ip, at, relay, decided, rules, lastRelay }: Explanation,
  isPast: boolean,
  expTime: number,
  style: Pick<ReturnType<typeof styleFor>, 'good' | 'bad' | 'faint'>,
  { mail, faults = {} }: KnownOfMail = {},
): string {
  const when = isPast ? `At ${formatMoment(at)} mail from ${ip} was` : `Mail from ${ip} is`
  const isOpen = relay && (mail === undefined || (mail.closed === null && !isExhausted(mail)))
  const answer = !isOpen
    ? style.bad(`${when} not relayed.`)
    : mail?.refused === true
      ? style.bad(`Mail from ${ip} is relayed, but this sender or recipient is refused.`)
      : style.good(`${when} relayed.`)
  const lines = [
    answer,
    `  ${ruleInWords(decided, at)}`,
    ...(mail === undefined ? [] : mailInWords(mail).map(line => `  ${line}`)),
  ]
  const advice = isPast ? undefined : adviceFor(decided, expTime)
  if (advice !== undefined) lines.push(`  ${advice}`)
  lines.push(...faultsInWords(faults).map(line => `  ${line}`))
  const others = rules.filter(rule => rule !== decided)
  const known = [
    ...others.map(rule => ruleInWords(rule, at)),
    ...(lastRelay === null ? [] : [lastRelayInWords(lastRelay)]),
  ]
  if (known.length > 0) lines.push(style.faint('Also known:'), ...known.map(text => `  ${text}`))
  return `${lines.join('\n')}\n`
}

/** Texts of the rules for administrators. The names are for scripts. */
const LEADS: Readonly<Record<Rule['rule'], string>> = {
  'never-granted': 'Never granted',
  block: 'Blocked',
  allowance: 'Allowed without a login',
  grant: 'Opened by',
  login: 'Opened by',
  'refused-login': 'Login refused',
  expired: 'Closed again',
  'never-seen': 'Never seen',
}

const lastRelayInWords = ({ at, service, host }: LastRelay): string =>
  `Last relayed mail: at ${formatMoment(at)} by ${printable(service)}${host === null ? '' : ` on ${printable(host)}`}`

/** The facts of a rule in words. `at`: the time of the explanation. */
function detailOf(rule: Rule, at: Date): string {
  const { network, login, owner, reason, daemon, method, session, host } = rule
  const target = network ?? `login ${login}`
  const ofLogin = [
    daemon,
    method,
    'login',
    login,
    session === null ? null : `session ${session}`,
    host === null ? null : `on ${host}`,
  ]
    .filter(word => word !== null)
    .join(' ')
  switch (rule.rule) {
    case 'never-granted':
      return `${target} is never granted: ${reason}`
    case 'block':
      return `${target} blocked by ${owner}: ${reason}`
    case 'allowance':
      return `${target} allowed by ${owner}: ${reason}`
    case 'refused-login':
      return `${ofLogin} refused: ${reason}`
    case 'expired':
      return rule.until !== null && rule.until > at ? `${ofLogin}, the grant was removed` : ofLogin
    case 'never-seen':
      return `no login from ${target} is known`
    default:
      return ofLogin
  }
}

function ruleInWords(shown: Rule, at: Date): string {
  const { rule, relay, since, until } = shown
  const left = until === null ? 0 : (until.getTime() - at.getTime()) / 1000
  const distance = left <= 0 ? `${formatDuration(-left)} ago` : `${formatDuration(left)} left`
  const times = [
    since === null
      ? ''
      : `${rule === 'grant' || rule === 'login' || rule === 'expired' ? 'at' : 'since'} ${formatMoment(since)}`,
    until === null ? '' : `${rule === 'expired' && left > 0 ? 'would have lasted ' : ''}until ${formatMoment(until)}`,
    until !== null && (relay || (rule === 'expired' && left <= 0)) ? `(${distance})` : '',
  ].filter(text => text !== '')
  return `${LEADS[rule]}: ${[printable(detailOf(shown, at)), times.join(' ')].filter(text => text !== '').join(', ')}`
}

function adviceFor({ rule, relay, reason }: Rule, expTime: number): string | undefined {
  if (relay) return undefined
  switch (rule) {
    case 'block':
      return 'What to do: auth-relay show lists the blocks. To end one: auth-relay unblock TARGET.'
    case 'never-granted':
      return 'What to do: give relay rights to such an address in the SMTP server itself, or change [grants] of the settings.'
    case 'refused-login':
      return `What to do: the password was right; the reason for the refusal is ${printable(reason ?? 'unknown')}. Change [grants] in the settings, or end the block: auth-relay unblock TARGET.`
    case 'expired':
      return `What to do: open the mailbox by POP3 from this address again; each login opens the relay for ${formatDuration(expTime)}.`
    default:
      return `What to do: open the mailbox by POP3 from this address; the login opens the relay for ${formatDuration(expTime)}. If a login was made, it came from another address: see auth-relay show. To open the relay without a login: auth-relay allow.`
  }
}
