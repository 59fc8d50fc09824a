import type { EventCounts } from '../../grants/status-feed.ts'
import { count } from '../text/printable.ts'
import { STEP } from './event-history.ts'
import { html, type Markup } from './markup.ts'
import { clockTime } from './times.ts'

const WIDTH = 960
const LEFT = 44
const RIGHT = 8
/**
 * Heights of the parts, from above: granted logins grow upward, refused ones downward; in a strip
 * of their own the gate's clients likewise.
 */
const TOP = 12
const UP = 110
const DOWN = 40
const GAP = 30
const MAILS = 54
const CLOSED = 36
const AXIS = 22
const HEIGHT = TOP + UP + DOWN + GAP + MAILS + CLOSED + AXIS

const BASE = TOP + UP
const MAIL_BASE = BASE + DOWN + GAP + MAILS
const END = MAIL_BASE + CLOSED

/**
 * The logins, refusals and gate decisions of the last hours as one picture; what a colour says,
 * direction and place say too.
 */
export function chart(steps: readonly EventCounts[]): Markup {
  const width = (WIDTH - LEFT - RIGHT) / steps.length
  const logins = niceMaximum(Math.max(...steps.map(({ granted, refused }) => Math.max(granted, refused))))
  const mails = niceMaximum(Math.max(...steps.map(({ relayed }) => relayed)))
  // A scale of its own: on the mail server of a domain nearly everybody is a stranger.
  const strangers = niceMaximum(Math.max(...steps.map(({ closed }) => closed)))
  const x = (index: number): number => round(LEFT + index * width)
  const bar = (kind: string, index: number, y: number, height: number) =>
    height > 0 &&
    html`<rect class="${kind}" x="${round(x(index) + width * 0.12)}" y="${round(y)}" width="${round(width * 0.76)}" height="${round(height)}" rx="1.5"/>`
  const columns = steps.map(({ start, granted, refused, relayed, closed }, index) => {
    const [up, down] = [heightOf(granted, logins, UP), heightOf(refused, logins, DOWN)]
    const [mail, shut] = [heightOf(relayed, mails, MAILS), heightOf(closed, strangers, CLOSED)]
    return html`<g class="step"><title>${clockTime(start)}–${clockTime(new Date(start.getTime() + STEP * 1000))}: ${granted} granted, ${refused} refused, ${relayed} let through, ${closed} not</title><rect class="hover" x="${x(index)}" y="${TOP}" width="${round(width)}" height="${END - TOP}"/>${bar('granted', index, BASE - up, up)}${bar('refused', index, BASE + 1, down)}${bar('relayed', index, MAIL_BASE - mail, mail)}${bar('closed', index, MAIL_BASE + 1, shut)}</g>`
  })
  const hours = steps.flatMap(({ start }, index) =>
    start.getMinutes() === 0 && start.getHours() % 2 === 0
      ? [
          html`<line class="tick" x1="${x(index)}" y1="${TOP}" x2="${x(index)}" y2="${END + 4}"/><text class="hour" x="${x(index)}" y="${HEIGHT - 4}" text-anchor="middle">${clockTime(start)}</text>`,
        ]
      : [],
  )
  const label = (value: number, y: number) => html`<text x="${LEFT - 8}" y="${y + 4}" text-anchor="end">${value}</text>`
  return html`<svg class="chart" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="chart-title chart-text"><title id="chart-title">Logins and gate decisions</title><desc id="chart-text">${inWords(steps)}</desc><g class="grid">${hours}<line x1="${LEFT}" y1="${TOP}" x2="${WIDTH - RIGHT}" y2="${TOP}"/><line x1="${LEFT}" y1="${TOP + UP / 2}" x2="${WIDTH - RIGHT}" y2="${TOP + UP / 2}"/><line class="base" x1="${LEFT}" y1="${BASE}" x2="${WIDTH - RIGHT}" y2="${BASE}"/><line class="base" x1="${LEFT}" y1="${MAIL_BASE}" x2="${WIDTH - RIGHT}" y2="${MAIL_BASE}"/><line x1="${LEFT}" y1="${MAIL_BASE - MAILS}" x2="${WIDTH - RIGHT}" y2="${MAIL_BASE - MAILS}"/><line x1="${LEFT}" y1="${END}" x2="${WIDTH - RIGHT}" y2="${END}"/>${label(logins, TOP)}${label(logins / 2, TOP + UP / 2)}${label(0, BASE)}${label(mails, MAIL_BASE - MAILS)}${label(0, MAIL_BASE)}${label(strangers, END)}</g>${columns}</svg>`
}

/** The same for whoever cannot see it. */
export function inWords(steps: readonly EventCounts[]): string {
  const sum = (read: (counts: EventCounts) => number): number => steps.reduce((total, each) => total + read(each), 0)
  const hours = (steps.length * STEP) / 3600
  return `In the last ${hours} hours ${were(
    sum(({ granted }) => granted),
    'login',
  )} granted, ${were(sum(({ refused }) => refused))} refused, and ${were(
    sum(({ relayed }) => relayed),
    'connection',
  )} let through by the gate, ${sum(({ closed }) => closed)} not.`
}

const were = (number: number, noun?: string): string =>
  `${noun === undefined ? number : count(number, noun)} ${number === 1 ? 'was' : 'were'}`

/** A round number not below the greatest value, and even, so that its half is whole. */
export function niceMaximum(greatest: number): number {
  if (greatest <= 4) return 4
  const power = 10 ** Math.floor(Math.log10(greatest))
  return (
    [1, 2, 4, 6, 8, 10].map(factor => factor * power).find(value => value >= greatest && value % 2 === 0) ?? 10 * power
  )
}

/** What is there at all can be seen. */
const heightOf = (value: number, maximum: number, height: number): number =>
  value === 0 ? 0 : Math.min(height, Math.max(2, (value / maximum) * height))

const round = (number: number): number => Math.round(number * 10) / 10
