/**
 * The rules for mail of a login, a device or a shared address. The gate and `auth-relay explain`
 * decide by them.
 */

import { systemClock } from '../../base/clock.ts'
import { type IpAddress, NetworkSet, parseNetwork } from '../../wire/ip-address.ts'
import { printableAscii } from '../../wire/lines.ts'
import type { GrantedDevice } from '../grant-store.ts'
import { NetworkFacts } from './network-facts.ts'

/** Why mail is refused: the rule's name for the log, and the SMTP reply with an enhanced code. */
export type MailRefusal = { readonly rule: string; readonly reply: string }

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

/** Minute of the day by the clock and the time zone of this host. */
export function localMinute(): number {
  const now = new Date(systemClock())
  return now.getHours() * 60 + now.getMinutes()
}

/** The logins that share an address, if it is shared and no device has it. */
export const sharersOf = (ip: IpAddress, opened: OpenedBy, rules: AddressRules): readonly string[] | undefined =>
  opened.device === undefined && isShared(ip, opened, rules)
    ? [...new Set([...(opened.logins ?? []), opened.login ?? ''])]
    : undefined

/** Carrier-grade NAT (RFC 6598): shared before the first login. */
const CARRIER_NAT = new NetworkSet([parseNetwork('100.64.0.0/10')].filter(network => network !== undefined))

/**
 * A client's address with an open relay: by a login, with its device and the other logins there, or
 * by an allowance, which has no login.
 */
export type OpenedBy = {
  readonly login?: string | undefined
  readonly device?: GrantedDevice | undefined
  /** Different logins from the address within the time of a grant; empty if there was one. */
  readonly logins?: readonly string[] | undefined
}

/** Whether several logins open an address, so that its last login does not identify the sender. */
export const isShared = (ip: IpAddress, { login, logins = [] }: OpenedBy, rules: AddressRules): boolean =>
  login !== undefined &&
  rules.sharedAddresses !== 'as_before' &&
  (logins.length >= rules.sharedLogins || CARRIER_NAT.has(ip))

/** Why the relay stays closed although there is a grant; undefined: it is open. */
export function closedBy(ip: IpAddress, opened: OpenedBy, rules: AddressRules): string | undefined {
  const { device, login } = opened
  if (device?.ended === true) return 'device_ended'
  if (device?.elsewhere === true && !isInPlace(ip, device, rules)) return 'device_network'
  if (device?.hours != null && !isWithin(device.hours, rules.minuteOfDay())) return 'device_hours'
  if (device === undefined && login !== undefined && rules.withoutDevice === 'refuse') return 'no_device'
  if (device === undefined && rules.sharedAddresses === 'nobody' && isShared(ip, opened, rules)) return 'shared_address'
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
      return { rule: reason, reply: `550 5.7.1 ${name} has ended; auth-relay device set ${device.name} --until DATE` }
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
  readonly login: string | undefined
  readonly device: GrantedDevice | undefined
  /** The logins of a shared address; undefined: it is not shared. */
  readonly sharedBy: readonly string[] | undefined
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  /** Of a login without a device; empty: all. */
  readonly recipientDomains: readonly string[]
  /** A sender that is not the login's own passes, because the binding only warns. */
  readonly onForeignSender: (sender: string) => void
}

const FOREIGN: MailRefusal = {
  rule: 'sender',
  reply: '550 5.7.1 sender address does not belong to the mailbox opened from here',
}
const SHARED: MailRefusal = {
  rule: 'shared_address',
  reply: '550 5.7.1 many mailboxes were opened from this address; send as one of them',
}

/** Checks an envelope sender, in UTF-8 and unquoted; empty: the null sender. */
export function refuseSender(rules: EnvelopeRules, sender: string): MailRefusal | undefined {
  const { login, device, sharedBy, senderBinding, senderDomains, onForeignSender } = rules
  if (sender === '') return undefined
  if (device !== undefined && device.senders.length > 0) {
    if (device.senders.some(own => senderBelongsTo(own, sender, []))) return undefined
    const [first = ''] = device.senders
    const reply = `550 5.7.1 device "${device.name}" may not send as ${shown(sender)}; set its sender to ${first}`
    return { rule: 'device_sender', reply }
  }
  if (device === undefined && sharedBy !== undefined)
    return sharedBy.some(own => senderBelongsTo(own, sender, senderDomains)) ? undefined : SHARED
  if (senderBinding === 'off' || login === undefined || senderBelongsTo(login, sender, senderDomains)) return undefined
  if (senderBinding === 'refuse') return FOREIGN
  onForeignSender(sender)
  return undefined
}

/** Checks an envelope recipient, in UTF-8 and unquoted. */
export function refuseRecipient(
  { login, device, recipientDomains }: EnvelopeRules,
  recipient: string,
): MailRefusal | undefined {
  const allowed = device !== undefined ? device.recipientDomains : login === undefined ? [] : recipientDomains
  if (allowed.length === 0) return undefined
  const at = recipient.lastIndexOf('@')
  const [local, domain] = at < 0 ? [recipient, ''] : [recipient.slice(0, at), recipient.slice(at + 1)]
  if (domain === '' && local.toLowerCase() === 'postmaster') return undefined
  const isListed = allowed.includes(domain.toLowerCase().replace(/\.$/, ''))
  // Servers route a local part with these octets on to another domain.
  if (isListed && !/[%!@]/.test(local)) return undefined
  if (device === undefined)
    return { rule: 'recipient', reply: `550 5.7.1 the mailbox opened from here may not send to ${shown(recipient)}` }
  const remedy = `allow the domain: auth-relay device set ${device.name} --to ${domain === '' ? 'DOMAIN' : shownDomain(domain)}`
  return {
    rule: 'device_recipient',
    reply: `550 5.7.1 device "${device.name}" may not send to ${shown(recipient)}; ${remedy}`,
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
  if (from.domain === '') return false
  if (name.domain !== '') return sameUser(name.local, from.local) && name.domain === from.domain
  return (
    sameUser(name.local, from.local) && (domains.length === 0 || domains.some(d => d.toLowerCase() === from.domain))
  )
}

/** vpopmail also takes `%` and `/` between name and domain. */
function partsOf(address: string): { readonly local: string; readonly domain: string } {
  const { local, domain } = /^(?<local>.*)[@%/](?<domain>[^@%/]*)$/s.exec(address)?.groups ?? {}
  return local === undefined || domain === undefined
    ? { local: address.toLowerCase(), domain: '' }
    : { local: local.toLowerCase(), domain: domain.toLowerCase() }
}

const sameUser = (login: string, local: string): boolean =>
  local === login || (local.startsWith(login) && /^[+-]/.test(local.slice(login.length)))
