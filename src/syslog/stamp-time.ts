/** Stamps of log lines: their forms, and their times. */

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const MINUTE_MS = 60_000
const DAY_MS = 86_400_000

/**
 * Pattern of the stamp of RFC 3164, with the variants of syslog-ng and appliances: an unpadded day,
 * a year in front or behind, fractions of a second.
 */
export const BSD_STAMP = String.raw`(?:\d{4} )?[A-Z][a-z]{2} [ \d]?\d (?:\d{4} )?\d\d:\d\d:\d\d(?:\.\d{1,9})?`
export const RFC3339_STAMP = String.raw`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)`

const BSD = /^(?:(\d{4}) )?([A-Z][a-z]{2}) {1,2}(\d{1,2}) (?:(\d{4}) )?(\d\d):(\d\d):(\d\d)(\.\d{1,9})?$/
const ISO = /^(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?(?:(Z)|([+-])(\d\d):?(\d\d))?$/

/**
 * The time of a stamp, in milliseconds since 1970; undefined if it contains no valid time. A stamp
 * without a zone is local time. A stamp without a year belongs to the latest year in which it is at
 * most a day after `now`. At the end of summer time an hour comes twice: a stamp in that hour means
 * the second one, unless that is after `now`.
 */
export function stampTime(stamp: string, now: number): number | undefined {
  const bsd = BSD.exec(stamp)
  if (bsd === null) return isoTime(stamp, now)
  const [, yearBefore, name = '', day, yearBehind, hours, minutes, seconds, fraction] = bsd
  if (yearBefore !== undefined && yearBehind !== undefined) return undefined
  const inYear = (year: number): number | undefined =>
    localTime(
      [year, MONTHS.indexOf(name), Number(day), Number(hours), Number(minutes), Number(seconds)],
      Math.floor(Number(fraction ?? 0) * 1000),
      now,
    )
  const written = yearBefore ?? yearBehind
  if (written !== undefined) return inYear(Number(written))
  const year = new Date(now).getFullYear()
  return [year + 1, year, year - 1].map(inYear).find(at => at !== undefined && at <= now + DAY_MS)
}

function isoTime(stamp: string, now: number): number | undefined {
  const match = ISO.exec(stamp)
  if (match === null) return undefined
  const [, year, month, day, hours, minutes, seconds, fraction, utc, sign, zoneHours, zoneMinutes] = match
  const fields: TimeFields = [
    Number(year),
    Number(month) - 1,
    Number(day),
    Number(hours),
    Number(minutes),
    Number(seconds),
  ]
  const milliseconds = Math.floor(Number(`0.${fraction ?? 0}`) * 1000)
  if (utc === undefined && sign === undefined) return localTime(fields, milliseconds, now)
  const [h, m] = [Number(zoneHours ?? 0), Number(zoneMinutes ?? 0)]
  if (!isTime(fields) || h > 23 || m > 59) return undefined
  const offset = (sign === '-' ? -1 : 1) * (h * 60 + m) * MINUTE_MS
  return Date.UTC(...fields) + milliseconds - offset
}

/** Year, month from 0, day, hours, minutes, seconds. */
type TimeFields = [number, number, number, number, number, number]

function localTime(fields: TimeFields, milliseconds: number, now: number): number | undefined {
  if (!isTime(fields)) return undefined
  const at = new Date(...fields).getTime() + milliseconds
  // For a time that comes twice, Date means the first one. The offset three hours later is that of
  // the second one. Not every summer time is a whole hour ahead.
  const behind = new Date(at + 180 * MINUTE_MS).getTimezoneOffset() - new Date(at).getTimezoneOffset()
  const second = new Date(at + behind * MINUTE_MS)
  const isTwice = second.getDate() === fields[2] && second.getHours() === fields[3] && second.getMinutes() === fields[4]
  return isTwice && second.getTime() <= now ? second.getTime() : at
}

/**
 * False for a time that does not exist, such as 30 February, which is a day of another month.
 * Second 60 is a leap second.
 */
function isTime([year, month, day, hours, minutes, seconds]: TimeFields): boolean {
  const date = new Date(Date.UTC(year, month, day))
  return date.getUTCMonth() === month && hours < 24 && minutes < 60 && seconds <= 60
}
