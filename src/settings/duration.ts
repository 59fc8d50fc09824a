/** Durations: of the settings file, of the command line, and for people. */

/** Seconds of each unit of the command line. */
const UNITS = { s: 1, m: 60, min: 60, h: 3600, d: 86_400, w: 604_800 } as const

/** Milliseconds of each unit of the settings file. */
const UNIT_MS = { ms: 1, s: 1000, m: 60_000, min: 60_000, h: 3_600_000, d: 86_400_000, w: 604_800_000 } as const

/** Units of a setting's value, with the word for people. */
export const UNIT_NAMES = { ms: 'milliseconds', s: 'seconds', d: 'days' } as const
export type DurationUnit = keyof typeof UNIT_NAMES

const isUnit = (text: string): text is keyof typeof UNITS => Object.hasOwn(UNITS, text)
const isSettingUnit = (text: string): text is keyof typeof UNIT_MS => Object.hasOwn(UNIT_MS, text)

/**
 * Seconds of a duration of the command line: `90`, `30min` or `30m`, `8h`, `2d`, `1h30min`.
 * Undefined for any other text, for 0, and for more than ten years.
 */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d{1,9}|(\d{1,9}(s|min|m|h|d|w))+)$/.test(text)) return undefined
  let seconds = 0
  for (const [, digits = '', unit = ''] of text.matchAll(/(\d+)(s|min|m|h|d|w|)/g)) {
    seconds += Number(digits) * (isUnit(unit) ? UNITS[unit] : 1)
  }
  return seconds > 0 && seconds <= 3650 * UNITS.d ? seconds : undefined
}

/** The form of a duration in the settings file. */
export const DURATION_TEXT = /^(\d{1,9}(ms|s|min|m|h|d|w))+$/

/**
 * A duration of the settings file (`"30s"`, `"800ms"`, `"90d"`, `"1h30min"`) counted in `unit`.
 * Undefined for any other text, and for a duration that is not a whole number of the unit.
 */
export function parseDurationIn(unit: DurationUnit, text: string): number | undefined {
  if (!DURATION_TEXT.test(text)) return undefined
  let ms = 0
  for (const [, digits = '', name = ''] of text.matchAll(/(\d+)(ms|s|min|m|h|d|w)/g)) {
    if (isSettingUnit(name)) ms += Number(digits) * UNIT_MS[name]
  }
  const count = ms / UNIT_MS[unit]
  return Number.isSafeInteger(count) ? count : undefined
}

/**
 * Inverse of parseDurationIn. The text has the largest unit, up to days, of which the duration is a
 * whole number: 1800 s is `30min`.
 */
export function writeDuration(count: number, unit: DurationUnit): string {
  const ms = count * UNIT_MS[unit]
  for (const name of ['d', 'h', 'min', 's', 'ms'] as const) {
    if (ms > 0 && ms % UNIT_MS[name] === 0) return `${ms / UNIT_MS[name]}${name}`
  }
  return `0${unit}`
}

/**
 * `2 d 3 h`, `29 min`, `40 s`: the text for people. It has at most two units, and no seconds from
 * one minute on.
 */
export function formatDuration(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  const parts: readonly (readonly [number, string])[] = [
    [Math.floor(whole / UNITS.d), 'd'],
    [Math.floor((whole % UNITS.d) / UNITS.h), 'h'],
    [Math.floor((whole % UNITS.h) / UNITS.m), 'min'],
    [whole % UNITS.m, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  if (first < 0) return '0 s'
  const last = first < 2 ? first + 2 : first + 1
  return parts
    .slice(first, last)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}
