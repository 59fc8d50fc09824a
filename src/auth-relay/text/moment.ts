/** Parses and formats times for an administrator. */

/**
 * Parses a time as an administrator writes it: `2026-11-22T18:24:58Z` (any ISO 8601 offset),
 * `2026-11-22 18:24` in the zone of this host, `18:24` today, or `2h` for two hours ago. Undefined
 * for other texts.
 */
export function parseMoment(text: string, now: Date, ago: (text: string) => number | undefined): Date | undefined {
  const seconds = ago(text)
  if (seconds !== undefined) return new Date(now.getTime() - seconds * 1000)
  const today = /^(\d{1,2}):(\d{2})(?::(\d{2}))?$/.exec(text)
  if (today !== null) {
    const [, hours = '', minutes = '', rest = '0'] = today
    if (Number(hours) > 23 || Number(minutes) > 59 || Number(rest) > 59) return undefined
    const moment = new Date(now)
    moment.setHours(Number(hours), Number(minutes), Number(rest), 0)
    return moment
  }
  if (!/^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?(Z|[+-]\d{2}:?\d{2})?)?$/.test(text)) return undefined
  const iso = text.replace(' ', 'T').replace(/([+-]\d{2})(\d{2})$/, '$1:$2')
  const moment = new Date(iso.length === 10 ? `${iso}T00:00` : iso)
  return Number.isNaN(moment.getTime()) ? undefined : moment
}

/** `2026-11-22 18:24:58` in the zone of this host. */
export function formatMoment(moment: Date): string {
  const two = (number: number): string => String(number).padStart(2, '0')
  const date = `${moment.getFullYear()}-${two(moment.getMonth() + 1)}-${two(moment.getDate())}`
  return `${date} ${two(moment.getHours())}:${two(moment.getMinutes())}:${two(moment.getSeconds())}`
}

/** `18:24` in the zone of this host. */
export const clockTime = (moment: Date): string => formatMoment(moment).slice(11, 16)

/** `18:24:58` for today, with its date for any other day. */
export function shortMoment(moment: Date, now: Date): string {
  const text = formatMoment(moment)
  return text.slice(0, 10) === formatMoment(now).slice(0, 10) ? text.slice(11) : text
}
