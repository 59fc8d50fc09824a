/** The rules of a device in the words of the command line. */
import { domainToASCII, domainToUnicode } from 'node:url'
import { UsageFault } from '../base/errors.ts'
import type { Device } from '../grants/devices/device-admin.ts'
import { isPlace } from '../grants/devices/network-facts.ts'
import { formatTarget, readNetwork } from './grant-target.ts'

/** The options that name rules, as text. */
export type RuleOptions = {
  readonly login?: string
  readonly sender?: string
  readonly from?: string
  readonly to?: string
  readonly perHour?: string
  readonly perDay?: string
  readonly recipientsPerHour?: string
  readonly recipientsPerDay?: string
  readonly lineEndings?: string
  readonly hours?: string
  readonly until?: string
  readonly owner?: string
  readonly note?: string
}

/** Throws UsageFault for the first option that is invalid. */
export function readChanges(options: RuleOptions): Partial<Omit<Device, 'name'>> {
  const { login, sender, from, to, perHour, perDay, recipientsPerHour, recipientsPerDay, until, owner, note } = options
  return {
    ...(login === undefined ? {} : { logins: words(login, '--login').map(readLogin) }),
    ...(sender === undefined ? {} : { senders: words(sender, '--sender').map(readSender) }),
    ...(from === undefined ? {} : readFrom(words(from, '--from'))),
    ...(to === undefined ? {} : { recipientDomains: [...new Set(words(to, '--to').flatMap(readDomain))] }),
    ...(perHour === undefined ? {} : { messagesPerHour: readLimit(perHour, '--per-hour') }),
    ...(perDay === undefined ? {} : { messagesPerDay: readLimit(perDay, '--per-day') }),
    ...(recipientsPerHour === undefined
      ? {}
      : { recipientsPerHour: readLimit(recipientsPerHour, '--recipients-per-hour') }),
    ...(recipientsPerDay === undefined
      ? {}
      : { recipientsPerDay: readLimit(recipientsPerDay, '--recipients-per-day') }),
    ...(options.lineEndings === undefined ? {} : { lineEndings: readLineEndings(options.lineEndings) }),
    ...(options.hours === undefined ? {} : { hours: readHours(options.hours) }),
    ...(until === undefined ? {} : { until: readEnd(until) }),
    ...(owner === undefined ? {} : { owner: readText(owner, '--owner', 255) }),
    ...(note === undefined ? {} : { note: readText(note, '--note', 500) }),
  }
}

function words(text: string, option: string): readonly string[] {
  const found = text.split(/[\s,]+/).filter(word => word !== '')
  if (found.length > 100) throw new UsageFault(`${option} names more than 100 values: make another device for the rest`)
  return found
}

/** Networks, and places: `DE`, `AS64500`. */
const readFrom = (from: readonly string[]): Pick<Device, 'networks' | 'places'> => ({
  networks: from.filter(each => !isPlace(each)).map(each => formatTarget(readNetwork(each))),
  places: from.filter(isPlace),
})

export function readLogin(text: string): string {
  return readText(text, '--login', 255)
}

function readSender(text: string): string {
  if (!/^[^@\s<>]+@[^@\s<>]+$/.test(text) || text.length > 254)
    throw new UsageFault(`--sender ${text} is not an address: write scan@example.org`)
  return text
}

/** In both forms, because a client may write either. */
function readDomain(text: string): readonly string[] {
  const ascii = domainToASCII(text.replace(/\.$/, ''))
  if (ascii === '' || !/^[a-z0-9._-]+$/.test(ascii))
    throw new UsageFault(`--to ${text} is not a domain: write example.org, without @`)
  return [ascii, domainToUnicode(ascii)]
}

function readLimit(text: string, option: string): number {
  if (!/^\d{1,7}$/.test(text))
    throw new UsageFault(`${option} ${text} is not a limit: write a whole number, 0 for none`)
  return Number(text)
}

function readLineEndings(text: string): Device['lineEndings'] {
  if (text === 'strict' || text === 'repair') return text
  throw new UsageFault(`--line-endings ${text}: write strict or repair`)
}

/** Null for always. */
function readHours(text: string): Device['hours'] {
  if (text === 'always') return null
  const [, fromHour = '', fromMinute = '', toHour = '', toMinute = ''] =
    /^(\d\d):(\d\d)-(\d\d):(\d\d)$/.exec(text) ?? []
  const from = Number(fromHour) * 60 + Number(fromMinute)
  const to = Number(toHour) * 60 + Number(toMinute)
  const isTime = fromHour !== '' && Number(fromMinute) < 60 && Number(toMinute) < 60 && from < 1440 && to <= 1440
  if (!isTime || from === to)
    throw new UsageFault(`--hours ${text} is not a part of the day: write 07:00-19:00, 22:00-06:00 or always`)
  return { from, to }
}

/** The time at the end of the last day; null: never. */
function readEnd(text: string): Date | null {
  if (text === 'never') return null
  const day = /^\d{4}-\d{2}-\d{2}$/.test(text) ? new Date(`${text}T00:00:00Z`) : undefined
  if (day === undefined || Number.isNaN(day.getTime()) || !day.toISOString().startsWith(text))
    throw new UsageFault(`--until ${text} is not a day: write 2027-12-31, or never`)
  return new Date(day.getTime() + DAY_MS)
}

function readText(text: string, option: string, most: number): string {
  if (text.length > most || /[\0-\x1f\x7f]/.test(text))
    throw new UsageFault(`${option} must be one line of at most ${most} characters: shorten it`)
  return text
}

const DAY_MS = 86_400_000
