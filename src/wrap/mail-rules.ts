import type { GrantedDevice } from '../grants/grant-store.ts'
import type { Refusal, Reservation } from '../smtp/transaction.ts'
import { loginKey } from '../wire/login-event.ts'
import type { HourlyRate, PolicyRates } from './services/policy-rates.ts'

/** What the policy service and the front enforce for the mail of a granted client. */
export type MailRules = {
  readonly login: string | undefined
  readonly device: GrantedDevice | undefined
  /** Whose mail counts together in the rates per address. */
  readonly customer: string
  readonly senderBinding: 'off' | 'warn' | 'refuse'
  readonly senderDomains: readonly string[]
  readonly rates: PolicyRates
  /** A sender that is not the login's own passes, because the binding only warns. */
  readonly onForeignSender: (sender: string) => void
}

const FOREIGN: Refusal = {
  rule: 'sender',
  reply: '550 5.7.1 sender address does not belong to the mailbox opened from here',
}

/** Judges an envelope sender, in UTF-8 and unquoted; empty: the null sender. */
export function refuseSender(rules: MailRules, sender: string): Refusal | undefined {
  const { login, device, senderBinding, senderDomains, onForeignSender } = rules
  if (sender === '') return undefined
  if (device !== undefined && device.senders.length > 0) {
    if (device.senders.some(own => senderBelongsTo(own, sender, []))) return undefined
    const [first = ''] = device.senders
    const reply = `550 5.7.1 device "${device.name}" may not send as ${shown(sender)}; set its sender to ${first}`
    return { rule: 'device_sender', reply }
  }
  if (senderBinding === 'off' || login === undefined || senderBelongsTo(login, sender, senderDomains)) return undefined
  if (senderBinding === 'refuse') return FOREIGN
  onForeignSender(sender)
  return undefined
}

/** Judges an envelope recipient, in UTF-8 and unquoted. */
export function refuseRecipient({ device }: MailRules, recipient: string): Refusal | undefined {
  if (device === undefined || device.recipientDomains.length === 0) return undefined
  const at = recipient.lastIndexOf('@')
  const [local, domain] = at < 0 ? [recipient, ''] : [recipient.slice(0, at), recipient.slice(at + 1)]
  if (domain === '' && local.toLowerCase() === 'postmaster') return undefined
  const isListed = device.recipientDomains.includes(domain.toLowerCase().replace(/\.$/, ''))
  // Servers route a local part with these octets on to another domain.
  if (isListed && !/[%!@]/.test(local)) return undefined
  const remedy = `allow the domain: auth-relay device set ${device.name} --to ${domain === '' ? 'DOMAIN' : shownDomain(domain)}`
  return {
    rule: 'device_recipient',
    reply: `550 5.7.1 device "${device.name}" may not send to ${shown(recipient)}; ${remedy}`,
  }
}

type Counted = {
  readonly rate: HourlyRate
  readonly key: string
  readonly rule: string
  /** Of this key; undefined: the rate's own. */
  readonly limit?: number
}

/** What one more message counts for. */
export function messageCounts({ login, device, customer, rates }: MailRules): readonly Counted[] {
  return [
    { rate: rates.messagesPerAddress, key: customer, rule: 'messages_per_address' },
    ...(login === undefined
      ? []
      : [{ rate: rates.messagesPerLogin, key: loginKey(login), rule: 'messages_per_login' }]),
    ...(device === undefined
      ? []
      : [
          { rate: rates.device.messagesPerHour, key: device.name, rule: 'device_hour', limit: device.messagesPerHour },
          { rate: rates.device.messagesPerDay, key: device.name, rule: 'device_day', limit: device.messagesPerDay },
        ]),
  ]
}

/** What one more recipient counts for. */
export function recipientCounts({ login, device, customer, rates }: MailRules): readonly Counted[] {
  return [
    { rate: rates.recipientsPerAddress, key: customer, rule: 'recipients_per_address' },
    ...(login === undefined
      ? []
      : [{ rate: rates.recipientsPerLogin, key: loginKey(login), rule: 'recipients_per_login' }]),
    ...(device === undefined
      ? []
      : [
          {
            rate: rates.device.recipientsPerHour,
            key: device.name,
            rule: 'device_hour',
            limit: device.recipientsPerHour,
          },
          { rate: rates.device.recipientsPerDay, key: device.name, rule: 'device_day', limit: device.recipientsPerDay },
        ]),
  ]
}

/** Whether one more is within every limit. */
export function refuseCount(counted: readonly Counted[]): Refusal | undefined {
  const over = counted.find(({ rate, key, limit }) => !rate.allows(key, limit))
  if (over === undefined) return undefined
  const { rule, key, limit = 0 } = over
  if (limit === 0) return { rule, reply: '450 4.7.1 too much mail within an hour, try again later' }
  const period = rule === 'device_day' ? 'a day' : 'an hour'
  return { rule, reply: `450 4.7.1 device "${key}" has reached its limit of ${limit} in ${period}; try again later` }
}

/** Counts one more, if every limit allows it. */
export function reserve(counted: readonly Counted[]): Refusal | Reservation {
  const refusal = refuseCount(counted)
  if (refusal !== undefined) return refusal
  for (const { rate, key, limit } of counted) rate.add(key, limit)
  return {
    giveBack: () => {
      for (const { rate, key } of counted) rate.takeBack(key)
    },
  }
}

/** An address in a reply: cut, and printable. */
const shown = (address: string): string => `<${shownDomain(address)}>`
const shownDomain = (text: string): string =>
  text
    .slice(0, 100)
    .replace(/[^\x21-\x7e]/g, character => encodeURIComponent(character.isWellFormed() ? character : '?'))

/**
 * True if an envelope sender belongs to the login that opened the address: the login is the whole
 * address, or the local part of one in a
 * domain of ours (any domain, if none is listed). `ann+list@…` and `ann-list@…` are ann's, as qmail
 * and Postfix deliver them. The null sender is
 * everybody's: bounces and receipts have it.
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
