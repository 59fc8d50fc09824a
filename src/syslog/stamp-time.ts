const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const DAY = 86_400_000

/**
 * When a stamp says its line was written, in milliseconds; undefined if it says nothing. Stamps without a zone are local
 * time, stamps without a year belong to the latest year in which they lie no more than a day after `now`.
 */
export function stampTime(stamp: string, now: number): number | undefined {
  const [match, name = '', day, time = ''] = /^([A-Z][a-z]{2}) ([ \d]\d) (\d\d:\d\d:\d\d)$/.exec(stamp) ?? []
  if (match === undefined) {
    const dated = Date.parse(stamp.replace(' ', 'T'))
    return Number.isNaN(dated) ? undefined : dated
  }
  const month = MONTHS.indexOf(name)
  const [hours = 0, minutes = 0, seconds = 0] = time.split(':').map(Number)
  if (month < 0) return undefined
  const inYear = (year: number): number => new Date(year, month, Number(day), hours, minutes, seconds).getTime()
  const year = new Date(now).getFullYear()
  return [year + 1, year, year - 1].map(inYear).find(at => at <= now + DAY)
}
