/**
 * The rules for mail of a login, a device or a shared address. The gate and `auth-relay explain`
 * decide by them.
 */

import { domainToASCII } from 'node:url'
import { type Clock, systemClock } from '../../base/clock.ts'
import { type IpAddress, NetworkSet, parseNetwork } from '../../wire/ip-address.ts'
import { printableAscii } from '../../wire/key-values.ts'
import { loginKey } from '../../wire/login-event.ts'
import type { GrantedDevice, LoginDevice } from '../grant-store.ts'
import { NetworkFacts } from './network-facts.ts'

/** Why mail is refused: the rule's name for the log, and the SMTP reply with an enhanced code. */
export type MailRefusal = {
  readonly rule:
    | ('device_ended' | 'device_hours' | 'device_network' | 'device_recipient' | 'device_sender' | 'expired')
    | ('recipient' | 'sender' | 'shared_address' | 'undecided')
  readonly reply: string
}

/** Rules of the site for addresses and for logins without a device. */
export type AddressRules = {
  /** `refuse`: only devices open the relay. */
  readonly withoutDevice: 'relay' | 'refuse'
  /**
   * Mail that is relayed from an address of several logins. `devices`: mail of devices, and mail
   * with a sender that belongs to one of the logins. `nobody`: mail of devices alone. `as_before`:
   * all mail.
   */
  readonly sharedAddresses: 'devices' | 'nobody' | 'as_before'
  /** Number of different logins within the time of a grant that makes an address shared. */
  readonly sharedLogins: number
  /** Minute of the day in local time, for the hours of devices. */
  readonly minuteOfDay: () => number
  /** Country and AS number of an address, for the places of devices. */
  readonly placesOf: (ip: IpAddress) => readonly string[]
}

/** The settings that decide about addresses. */
type AddressSettings = {
  readonly wrap: {
    readonly without_device: AddressRules['withoutDevice']
    readonly shared_addresses: AddressRules['sharedAddresses']
    readonly shared_logins: number
  }
  readonly grants: { readonly mmdb_files: readonly string[] }
}

/** The rules that the settings demand, the same for the gate and for `explain`. */
export function addressRulesOf({ wrap, grants }: AddressSettings): AddressRules {
  const facts = new NetworkFacts(grants.mmdb_files)
  return {
    withoutDevice: wrap.without_device,
    sharedAddresses: wrap.shared_addresses,
    sharedLogins: wrap.shared_logins,
    minuteOfDay: localMinute,
    placesOf: ip => facts.placesOf(ip),
  }
}

/** Minute of the day, from 0 to 1439, by the clock and the time zone of this host. */
export function localMinute(clock: Clock = systemClock): number {
  const now = new Date(clock())
  return now.getHours() * 60 + now.getMinutes()
}

/**
 * The logins of an address that has several, and their devices. The gate cannot see which of them
 * sends a mail, so the envelope sender decides whose rules hold (rulesOfSender).
 */
export type Neighbours = {
  /** Each login once, as a key. */
  readonly logins: readonly string[]
  /** The devices of these logins. `isOpen` false: it has ended, or may not send here or now. */
  readonly devices: readonly (LoginDevice & { readonly isOpen: boolean })[]
  /** Only mail with a sender of a login or a device is relayed. */
  readonly isShared: boolean
  /** A login without a device relays nothing. */
  readonly onlyDevices: boolean
}

/** The neighbours of an address that opens the relay; undefined: it has one login or none. */
export function neighboursOf(ip: IpAddress, opened: OpenedBy, rules: AddressRules): Neighbours | undefined {
  const { login, logins = [], devices = [], device } = opened
  const shared = isShared(ip, opened, rules)
  if (login === undefined || (logins.length < 2 && !shared)) return undefined
  const own = loginKey(login)
  const last = device === undefined || devices.some(other => other.login === own) ? [] : [{ login: own, device }]
  return {
    logins: [...new Set([...logins, own])],
    devices: [...last, ...devices].map(each => ({
      ...each,
      isOpen: deviceClosedBy(ip, each.device, rules) === undefined,
    })),
    isShared: shared,
    onlyDevices: rules.withoutDevice === 'refuse' || (shared && rules.sharedAddresses === 'nobody'),
  }
}

/**
 * The neighbours of an address that its last login closes. Only logins of the present grant count,
 * because they alone have opened the address. Undefined: there are none.
 */
function neighboursOfClosed(ip: IpAddress, opened: OpenedBy, rules: AddressRules): Neighbours | undefined {
  const neighbours = neighboursOf(ip, opened, rules)
  if (neighbours === undefined) return undefined
  const granted = new Set(opened.granted)
  return {
    ...neighbours,
    logins: neighbours.logins.filter(login => granted.has(login)),
    devices: neighbours.devices.filter(({ login }) => granted.has(login)),
  }
}

/** Carrier-grade NAT (RFC 6598): shared before the first login. */
const CARRIER_NAT = new NetworkSet([parseNetwork('100.64.0.0/10')].filter(network => network !== undefined))

/**
 * A client's address with an open relay: by a login, with its device and the other logins there, or
 * by an allowance, which has no login.
 */
export type OpenedBy = {
  readonly login?: string | undefined
  readonly device?: GrantedDevice | undefined
  /**
   * Different logins from the address within the time of a grant, without blocked ones; empty if
   * there was one.
   */
  readonly logins?: readonly string[] | undefined
  /** Those of `logins` that belong to the present grant. */
  readonly granted?: readonly string[] | undefined
  /** The devices of `logins`. */
  readonly devices?: readonly LoginDevice[] | undefined
}

/** Whether several logins open an address, so that its last login does not identify the sender. */
export const isShared = (ip: IpAddress, { login, logins = [] }: OpenedBy, rules: AddressRules): boolean =>
  login !== undefined &&
  rules.sharedAddresses !== 'as_before' &&
  (logins.length >= rules.sharedLogins || CARRIER_NAT.has(ip))

/** Rule of an address or of a device that keeps the relay closed. */
export type ClosedBy = 'device_ended' | 'device_network' | 'device_hours' | 'no_device' | 'shared_address'

/** Why the relay stays closed although there is a grant; undefined: it is open. */
export function closedBy(ip: IpAddress, opened: OpenedBy, rules: AddressRules): ClosedBy | undefined {
  const { device, login } = opened
  if (device !== undefined) return deviceClosedBy(ip, device, rules)
  if (login !== undefined && rules.withoutDevice === 'refuse') return 'no_device'
  if (rules.sharedAddresses === 'nobody' && isShared(ip, opened, rules)) return 'shared_address'
  return undefined
}

function deviceClosedBy(ip: IpAddress, device: GrantedDevice, rules: AddressRules): ClosedBy | undefined {
  if (device.ended) return 'device_ended'
  if (device.elsewhere && !isInPlace(ip, device, rules)) return 'device_network'
  if (device.hours !== null && !isWithin(device.hours, rules.minuteOfDay())) return 'device_hours'
  return undefined
}

const isInPlace = (ip: IpAddress, { places }: GrantedDevice, { placesOf }: AddressRules): boolean =>
  places.length > 0 && placesOf(ip).some(place => places.includes(place))

/** Hours from 22:00 to 06:00 lie around midnight. */
const isWithin = ({ from, to }: { readonly from: number; readonly to: number }, minute: number): boolean =>
  from < to ? minute >= from && minute < to : minute >= from || minute < to

/** `07:00 to 19:00`. */
export const formatHours = ({ from, to }: { readonly from: number; readonly to: number }): string =>
  `${clockTime(from)} to ${clockTime(to)}`
const clockTime = (minute: number): string =>
  `${String(Math.floor(minute / 60)).padStart(2, '0')}:${String(minute % 60).padStart(2, '0')}`

/** A grant or an allowance that opens the relay. */
export type RelayGrant = {
  /** Unix seconds by the clock of this host; undefined for an allowance without an end. */
  readonly until: number | undefined
  readonly login: string | undefined
  /** The device of the login. Its rules apply to the mail. */
  readonly device?: GrantedDevice | undefined
  /** The logins of the address and their devices; undefined if it has one login or none. */
  readonly neighbours?: Neighbours | undefined
}

/** Whether a grant opens the relay for its address. */
export type GrantDecision =
  | ({ readonly relay: true } & RelayGrant)
  | {
      readonly relay: false
      readonly reason: ClosedBy
      /** The device whose rule keeps the relay closed. */
      readonly device: GrantedDevice | undefined
      /**
       * The last login closes the address, which has other logins. One of them may send, see
       * decisionOfSender.
       */
      readonly bySender?: { readonly until: number | undefined; readonly neighbours: Neighbours } | undefined
    }

/** Decides whether a grant of the store opens the relay, by the rules of addresses and devices. */
export function decisionOfGrant(
  ip: IpAddress,
  grant: Pick<RelayGrant, 'until'> & OpenedBy,
  rules: AddressRules,
): GrantDecision {
  const { until, login, device } = grant
  const closed = closedBy(ip, grant, rules)
  if (closed !== undefined) {
    const others = neighboursOfClosed(ip, grant, rules)
    const bySender = others === undefined ? {} : { bySender: { until, neighbours: others } }
    return { relay: false, reason: closed, device, ...bySender }
  }
  const neighbours = neighboursOf(ip, grant, rules)
  return { relay: true, until, login, device, ...(neighbours === undefined ? {} : { neighbours }) }
}

/**
 * The decision about the mail of a sender. Only a sender that belongs to a login which may send now
 * opens an address that its last login closes, so that the order of the logins changes nothing. All
 * other decisions stay as they are.
 */
export function decisionOfSender<
  D extends { readonly relay: true } | Pick<Extract<GrantDecision, { relay: false }>, 'relay' | 'bySender'>,
>(decision: D, sender: string, senderDomains: readonly string[]): D | ({ readonly relay: true } & RelayGrant) {
  if (decision.relay || decision.bySender === undefined) return decision
  const { until, neighbours } = decision.bySender
  const owner = ownerOf(neighbours, sender, senderDomains)
  return owner === undefined ? decision : { relay: true, until, login: owner.login, device: owner.device }
}

/**
 * The refusal of MAIL in a session that was open before its grant was closed, for a reason of
 * `closedBy` or another one. `undecided`: the database gave no answer.
 */
export function refuseSession(reason: string, device: GrantedDevice | undefined): MailRefusal {
  if (reason === 'undecided')
    return { rule: reason, reply: '451 4.3.0 cannot find out whether the relay is open, try again later' }
  if (device === undefined) return { rule: 'expired', reply: '450 4.7.1 open the mailbox by POP3 again, then send' }
  const name = `device "${device.name}"`
  switch (reason) {
    case 'device_ended':
      return {
        rule: reason,
        reply: `550 5.7.1 ${name} ended${device.until === null ? '' : ` on ${device.until}`}; auth-relay device set ${device.name} --until DATE`,
      }
    case 'device_network':
      return {
        rule: reason,
        reply: `550 5.7.1 ${name} may not send from here; auth-relay device set ${device.name} --from NETWORK`,
      }
    case 'device_hours': {
      const hours = device.hours === null ? 'its hours' : formatHours(device.hours)
      return { rule: reason, reply: `450 4.7.1 ${name} may send from ${hours}; try again then` }
    }
    default:
      return { rule: 'expired', reply: '450 4.7.1 open the mailbox by POP3 again, then send' }
  }
}

/** Rules for the envelopes of a granted client. */
export type EnvelopeRules = {
  /** The login whose rules hold, and its device. */
  readonly login: string | undefined
  readonly device: GrantedDevice | undefined
  /** The other logins of the address. rulesOfSender chooses one of them. */
  readonly neighbours: Neighbours | undefined
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  /** Of a login without a device; empty: all. */
  readonly recipientDomains: readonly string[]
  /**
   * Called if a sender that is not the login's own passes, because the binding only warns. `rules`:
   * the login and the device whose rules hold for the sender.
   */
  readonly onForeignSender: (sender: string, rules: Pick<EnvelopeRules, 'login' | 'device'>) => void
}

const FOREIGN: MailRefusal = {
  rule: 'sender',
  reply: '550 5.7.1 sender address does not belong to the mailbox opened from here',
}
const SHARED: MailRefusal = {
  rule: 'shared_address',
  reply: '550 5.7.1 many mailboxes were opened from this address; send as one of them',
}

/**
 * Chooses the rules for the mail of an envelope sender at an address with several logins. The rules
 * are those of the device or the login to which the sender belongs. The order of the logins does
 * not matter. At an address that is not shared, any other sender has the rules of a login that may
 * use every sender. Without such a login `neighbours` stays, and refuseSender refuses the sender.
 * The null sender has the rules of the last login.
 */
export function rulesOfSender<R extends EnvelopeRules>(rules: R, sender: string): R {
  const { login, device, neighbours, senderDomains, senderBinding } = rules
  if (neighbours === undefined) return rules
  if (sender === '') return { ...rules, neighbours: undefined }
  const { people, unbound } = sendersAllowed(neighbours)
  const { isShared: shared } = neighbours
  const owner = ownerOf(neighbours, sender, senderDomains)
  if (owner !== undefined) return { ...rules, login: owner.login, device: owner.device, neighbours: undefined }
  // Without sender binding such a login may use every sender, also if it is not the last login.
  const last = login === undefined ? undefined : loginKey(login)
  const free =
    shared || (senderBinding === 'refuse' && people.length + unbound.length > 1)
      ? undefined
      : (loginWithoutDevice(people.find(name => device === undefined && name === last) ?? people[0]) ?? unbound[0])
  return free === undefined ? rules : { ...rules, login: free.login, device: free.device, neighbours: undefined }
}

/** The login to which a sender belongs, and its device. */
type SenderOwner = { readonly login: string; readonly device: GrantedDevice | undefined }

/**
 * The open device or the login without a device to which a sender belongs. Undefined: the sender is
 * the null sender, or belongs to no login that may send from the address now.
 */
function ownerOf(neighbours: Neighbours, sender: string, senderDomains: readonly string[]): SenderOwner | undefined {
  if (sender === '') return undefined
  const { open, people, unbound } = sendersAllowed(neighbours)
  const belongs = (name: string): boolean => senderBelongsTo(name, sender, senderDomains)
  return (
    open.find(each => each.device.senders.some(own => senderBelongsTo(own, sender, []))) ??
    loginWithoutDevice(people.find(belongs)) ??
    unbound.find(each => belongs(each.login))
  )
}

/** The logins of an address that may send now: open devices, and logins without a device. */
function sendersAllowed({ logins, devices, onlyDevices }: Neighbours) {
  const open = devices.filter(each => each.isOpen)
  return {
    open,
    people: onlyDevices ? [] : logins.filter(name => !devices.some(each => each.login === name)),
    unbound: open.filter(each => each.device.senders.length === 0),
  }
}

const loginWithoutDevice = (login: string | undefined) =>
  login === undefined ? undefined : { login, device: undefined }

/**
 * Checks an envelope sender, as text and unquoted, by the rules of rulesOfSender; empty: the null
 * sender. Octets that are not UTF-8 make a text that is not well-formed, and belongs to no login.
 */
export function refuseSender(rules: EnvelopeRules, sender: string): MailRefusal | undefined {
  const { login, device, neighbours, senderBinding, senderDomains, onForeignSender } = rules
  if (sender === '') return undefined
  if (neighbours !== undefined) return SHARED
  if (device !== undefined && device.senders.length > 0) {
    if (device.senders.some(own => senderBelongsTo(own, sender, []))) return undefined
    const [first = ''] = device.senders
    const reply = `550 5.7.1 device "${device.name}" may not send as ${shown(sender)}; set its sender to ${encoded(first, MAX_SHOWN)}`
    return { rule: 'device_sender', reply }
  }
  if (senderBinding === 'off' || login === undefined || senderBelongsTo(login, sender, senderDomains)) return undefined
  if (senderBinding === 'refuse') return FOREIGN
  onForeignSender(sender, rules)
  return undefined
}

/** Checks an envelope recipient, as text and unquoted; see refuseSender. */
export function refuseRecipient(
  { login, device, recipientDomains }: EnvelopeRules,
  recipient: string,
): MailRefusal | undefined {
  const allowed = device !== undefined ? device.recipientDomains : login === undefined ? [] : recipientDomains
  if (allowed.length === 0) return undefined
  const at = recipient.lastIndexOf('@')
  const [local, domain] = at < 0 ? [recipient, ''] : [recipient.slice(0, at), recipient.slice(at + 1)]
  if (domain === '' && local.toLowerCase() === 'postmaster') return undefined
  const wanted = comparable(domain)
  const isListed = allowed.some(each => comparable(each) === wanted)
  // Servers route a local part with these octets on to another domain.
  if (isListed && !/[%!@]/.test(local) && recipient.isWellFormed()) return undefined
  if (device === undefined)
    return { rule: 'recipient', reply: `550 5.7.1 the mailbox opened from here may not send to ${shown(recipient)}` }
  const remedy = `allow the domain: auth-relay device set ${device.name} --to ${domain === '' ? 'DOMAIN' : shownDomain(domain)}`
  return {
    rule: 'device_recipient',
    reply: `550 5.7.1 device "${device.name}" may not send to ${shown(recipient)}; ${remedy}`,
  }
}

/** The parts of an envelope that are checked. Undefined: not known yet. */
export type CheckedEnvelope = { readonly sender: string | undefined; readonly recipient: string | undefined }

/** The rules that hold for an envelope, and the refusal of each of its parts. */
export type EnvelopeAnswer<R extends EnvelopeRules> = {
  readonly rules: R
  readonly sender: MailRefusal | undefined
  readonly recipient: MailRefusal | undefined
}

/** Checks an envelope by the rules of the login to which its sender belongs. */
export function checkEnvelope<R extends EnvelopeRules>(
  rulesOfGrant: R,
  { sender, recipient }: CheckedEnvelope,
): EnvelopeAnswer<R> {
  const rules = rulesOfSender(rulesOfGrant, sender ?? '')
  return {
    rules,
    sender: sender === undefined ? undefined : refuseSender(rules, sender),
    recipient: recipient === undefined ? undefined : refuseRecipient(rules, recipient),
  }
}

/** Longest address in a reply, in octets as encoded, so that the remedy fits behind it. */
const MAX_SHOWN = 100
/** Longest domain in a remedy, likewise. A device's name can have 64 octets. */
const MAX_SHOWN_DOMAIN = 60

/** An address in a reply: printable, without spaces, and cut. */
const shown = (address: string): string => `<${encoded(address, MAX_SHOWN)}>`

/** A domain in a remedy. A part of a domain would be another domain, so a long one is left out. */
function shownDomain(domain: string): string {
  const text = encoded(domain, Number.POSITIVE_INFINITY)
  return text.length > MAX_SHOWN_DOMAIN ? 'DOMAIN' : text
}

const encoded = (text: string, limit: number): string => printableAscii(text.replaceAll(' ', '%20'), limit)

/**
 * True if an envelope sender belongs to the login that opened the address. The login is the whole
 * address, or the local part of an address in one of `domains` (any domain, if the list is empty).
 * `ann+list@…` and `ann-list@…` belong to ann, as qmail and Postfix deliver them. The null sender
 * belongs to every login, because bounces and receipts have it.
 */
export function senderBelongsTo(login: string, sender: string, domains: readonly string[]): boolean {
  if (sender === '') return true
  const name = partsOf(login)
  const from = partsOf(sender)
  if (from.domain === '' || !sender.isWellFormed()) return false
  if (name.domain !== '') return sameUser(name.local, from.local) && name.domain === from.domain
  return sameUser(name.local, from.local) && (domains.length === 0 || domains.some(d => comparable(d) === from.domain))
}

/** vpopmail also takes `%` and `/` between name and domain. */
function partsOf(address: string): { readonly local: string; readonly domain: string } {
  const { local, domain } = /^(?<local>.*)[@%/](?<domain>[^@%/]*)$/s.exec(address)?.groups ?? {}
  return local === undefined || domain === undefined
    ? { local: address.toLowerCase(), domain: '' }
    : { local: local.toLowerCase(), domain: comparable(domain) }
}

/**
 * A domain for comparisons: in lower case, as A-labels (RFC 5890 §2.3.2.1), without the final dot.
 * The conversion gets no ASCII characters but those of host names, because it would read other ones
 * as the syntax of a URL.
 */
function comparable(domain: string): string {
  const lower = domain.toLowerCase().replace(/\.$/, '')
  if (!/[^\x00-\x7f]/.test(lower) || !/^[a-z0-9.\-\x80-\u{10ffff}]*$/u.test(lower)) return lower
  return domainToASCII(lower) || lower
}

const sameUser = (login: string, local: string): boolean =>
  local === login || (local.startsWith(login) && /^[+-]/.test(local.slice(login.length)))
