/** The rules for the mail of a granted client, and its counts against hourly and daily limits. */
import type { FieldsOf, Log } from '../base/log.ts'
import type { EnvelopeRules, RelayGrant } from '../grants/devices/mail-rules.ts'
import type { Refusal, Reservation } from '../smtp/transaction.ts'
import type { CustomerNetworks } from '../wire/customer-networks.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import { loginKey } from '../wire/login-event.ts'
import type { MailCounts, PeriodCount } from './mail-counts.ts'

/** Rules of policy service, query service and front for the mail of a granted client. */
export type MailRules = EnvelopeRules & {
  /** Key of the customer's network, for the counts for each address. */
  readonly customer: string
  readonly mailCounts: MailCounts
}

/** The rules that are the same for every client of the site. */
export type SiteMailRules = Pick<MailRules, 'senderBinding' | 'senderDomains' | 'recipientDomains' | 'mailCounts'> & {
  readonly customers: CustomerNetworks
}

/** Returns the rules for one client, by the grant or allowance of its address. */
export const mailRules = (
  { customers, ...site }: SiteMailRules,
  ip: IpAddress,
  { login, device, neighbours }: RelayGrant,
  onForeignSender: MailRules['onForeignSender'],
): MailRules => ({ ...site, login, device, neighbours, customer: customers.keyOf(ip), onForeignSender })

/** The login and the device whose rules hold, for the log. */
export const loggedRules = ({
  login,
  device,
}: Pick<MailRules, 'login' | 'device'>): { readonly user?: string; readonly device?: string } => ({
  ...(login === undefined ? {} : { user: login }),
  ...(device === undefined ? {} : { device: device.name }),
})

/** Logs the senders about which `sender_binding` only warns, in the same form for every service. */
export const logForeignSender =
  (log: Log, session: Pick<FieldsOf<'sender_mismatched'>, 'ip' | 'service' | 'pid'>): MailRules['onForeignSender'] =>
  (sender, rules) =>
    log.warn('sender_mismatched', { ...session, ...loggedRules(rules), sender })

/** A counter that one more message or recipient increases. */
type Counted = {
  readonly count: PeriodCount
  readonly key: string
  readonly rule: Refusal['rule']
  readonly what: 'message' | 'recipient'
  /** Limit for this key. Undefined: the limit of the count. */
  readonly limit?: number
}

/** Returns the counters that one more message increases. */
export function messageCounts({ login, device, customer, mailCounts }: MailRules): readonly Counted[] {
  return countsOf('message', [
    { count: mailCounts.messagesPerAddress, key: customer, rule: 'messages_per_address' },
    login && { count: mailCounts.messagesPerLogin, key: loginKey(login), rule: 'messages_per_login' },
    device && {
      count: mailCounts.device.messagesPerHour,
      key: device.name,
      rule: 'device_hour',
      limit: device.messagesPerHour,
    },
    device && {
      count: mailCounts.device.messagesPerDay,
      key: device.name,
      rule: 'device_day',
      limit: device.messagesPerDay,
    },
  ])
}

/** Returns the counters that one more recipient increases. */
export function recipientCounts({ login, device, customer, mailCounts }: MailRules): readonly Counted[] {
  const { recipientsPerHour, recipientsPerDay } = mailCounts.device
  return countsOf('recipient', [
    { count: mailCounts.recipientsPerAddress, key: customer, rule: 'recipients_per_address' },
    login && { count: mailCounts.recipientsPerLogin, key: loginKey(login), rule: 'recipients_per_login' },
    device && { count: recipientsPerHour, key: device.name, rule: 'device_hour', limit: device.recipientsPerHour },
    device && { count: recipientsPerDay, key: device.name, rule: 'device_day', limit: device.recipientsPerDay },
  ])
}

const countsOf = (
  what: Counted['what'],
  counters: readonly (Omit<Counted, 'what'> | '' | undefined)[],
): readonly Counted[] => counters.flatMap(counter => (counter ? [{ ...counter, what }] : []))

/** Returns a refusal if one more message or recipient exceeds a limit. */
export function refuseCount(counted: readonly Counted[]): Refusal | undefined {
  const over = counted.find(({ count, key, limit }) => !count.allows(key, limit))
  if (over === undefined) return undefined
  const { count, rule, key, what, limit = 0 } = over
  if (limit === 0) return { rule, reply: '450 4.7.1 too much mail within an hour, try again later' }
  const isDay = rule === 'device_day'
  // The minute begins after the limit permits the next mail.
  const free = new Date(count.allowsFrom(key, limit) + 59_999).toISOString()
  const time = `${isDay ? `${free.slice(0, 10)} ` : ''}${free.slice(11, 16)} UTC`
  const sent = `${limit} ${what}${limit === 1 ? '' : 's'} in ${isDay ? 'a day' : 'an hour'}`
  return { rule, reply: `450 4.7.1 device "${key}" has sent ${sent}; try again after ${time}` }
}

/** Counts one more message or recipient if every limit permits it. */
export function reserve(counted: readonly Counted[]): Refusal | Reservation {
  const refusal = refuseCount(counted)
  if (refusal !== undefined) return refusal
  for (const { count, key, limit } of counted) count.add(key, limit)
  return {
    giveBack: () => {
      for (const { count, key } of counted) count.takeBack(key)
    },
  }
}
