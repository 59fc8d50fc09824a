import { formatMoment } from '../text/moment.ts'

/** `18:24` in the zone of this host. */
export const clockTime = (moment: Date): string => formatMoment(moment).slice(11, 16)

/** `18:24:58` for today, with its date for any other day. */
export function shortMoment(moment: Date, now: Date): string {
  const text = formatMoment(moment)
  return text.slice(0, 10) === formatMoment(now).slice(0, 10) ? text.slice(11) : text
}
