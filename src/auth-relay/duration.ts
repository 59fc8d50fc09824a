const UNITS = { s: 1, m: 60, h: 3600, d: 86_400, w: 604_800 } as const

const isUnit = (text: string): text is keyof typeof UNITS => Object.hasOwn(UNITS, text)

/** Seconds of `90`, `30m`, `8h`, `2d`, `1h30m`; undefined for anything else, for 0, and for more than ten years. */
export function parseDuration(text: string): number | undefined {
  if (!/^(\d{1,9}|(\d{1,9}[smhdw])+)$/.test(text)) return undefined
  let seconds = 0
  for (const [, digits = '', unit = ''] of text.matchAll(/(\d+)([smhdw]?)/g)) {
    seconds += Number(digits) * (isUnit(unit) ? UNITS[unit] : 1)
  }
  return seconds > 0 && seconds <= 3650 * UNITS.d ? seconds : undefined
}

/** `2 d 3 h`, `29 min`, `40 s`: the two largest units, for people. */
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
  // From a minute on nobody wants the seconds.
  const last = first < 2 ? first + 2 : first + 1
  return parts
    .slice(first, last)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}
