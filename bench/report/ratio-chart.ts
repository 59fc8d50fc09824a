import type { Row, Summary } from './report.ts'

/**
 * The value of a row in a chart: the factor by which auth-relay is better than the peer. Below 1 it
 * is worse.
 */
export type Advantage = Summary & { readonly goal: number | null }

/** Turns a ratio so that more is better. Undefined for a row without a peer. */
export function advantageOf({ ratio, better, goal }: Pick<Row, 'ratio' | 'better' | 'goal'>): Advantage | undefined {
  if (ratio === null) return undefined
  const wanted = goal !== null && 'ratio' in goal ? goal.ratio : null
  if (better === 'more') return { ...ratio, goal: wanted }
  return {
    median: 1 / ratio.median,
    low: 1 / ratio.high,
    high: 1 / ratio.low,
    goal: wanted === null ? null : 1 / wanted,
  }
}

const WIDTH = 860
/** Positions of the beginning and the end of the bars. */
const [LEFT, RIGHT] = [200, 760]
const [TOP, HEADING, BAR, GAP] = [64, 24, 22, 6]

/** Colours that differ in lightness too, in both schemes. */
const STYLE = `
    svg { font: 13px system-ui, sans-serif }
    .paper { fill: #ffffff } text { fill: #1f2328 } .quiet { fill: #59636e }
    .grid { stroke: #d1d9e0 } .one { stroke: #59636e } .spread { stroke: #1f2328; stroke-width: 1.5 }
    .better { fill: #2f6fd0 } .worse { fill: #e08a2c } .goal { fill: none; stroke: #1f2328; stroke-width: 1.5 }
    .title { font-size: 15px; font-weight: 600 }
    .load { font-weight: 600; paint-order: stroke; stroke: #ffffff; stroke-width: 5px }
    .end { text-anchor: end } .middle { text-anchor: middle }
    @media (prefers-color-scheme: dark) {
      .paper { fill: #0d1117 } text { fill: #e6edf3 } .quiet { fill: #9198a1 }
      .grid { stroke: #2a313a } .one { stroke: #9198a1 } .spread, .goal { stroke: #e6edf3 }
      .better { fill: #4c8df0 } .worse { fill: #d98a35 } .load { stroke: #0d1117 }
    }`

const STEPS = [1, 2, 5]

/** Round numbers within a range, both ends included. */
export function ticksOf(low: number, high: number): readonly number[] {
  const ticks: number[] = []
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    // 10 ** -1 * 5 is not 0.5.
    for (const step of STEPS) ticks.push(Number(`${step}e${power}`))
  }
  const first = ticks.findLastIndex(tick => tick <= low)
  const last = ticks.findIndex(tick => tick >= high)
  return ticks.slice(first, last + 1)
}

/**
 * The most important rows: every peer of the figures that have a goal. All rows if no figure has a
 * goal.
 */
function charted(rows: readonly Row[]): readonly Row[] {
  const key = ({ load, unit }: Row): string => `${load}: ${unit}`
  const wanted = new Set(rows.filter(({ goal, peer }) => goal !== null && peer !== null).map(key))
  return wanted.size === 0 ? rows : rows.filter(row => wanted.has(key(row)))
}

/**
 * An SVG picture of the rows that have a peer, on a logarithmic scale of the factor by which
 * auth-relay is better. The median is a bar, the spread of the rounds a line, the goal a diamond.
 * Undefined if no row has a peer.
 */
export function ratioChart(title: string, rows: readonly Row[]): string | undefined {
  const shown = charted(rows).flatMap(row => {
    const advantage = advantageOf(row)
    return advantage === undefined || row.peer === null
      ? []
      : [{ load: `${row.load}: ${row.unit}`, peer: row.peer.name, advantage }]
  })
  if (shown.length === 0) return undefined
  const all = shown.flatMap(({ advantage: { low, high, goal } }) => [low, high, goal ?? 1])
  const ticks = ticksOf(Math.min(0.5, ...all), Math.max(2, ...all))
  const [least = 0.5, greatest = 2] = [ticks.at(0), ticks.at(-1)]
  const x = (factor: number): number =>
    LEFT + ((Math.log(factor) - Math.log(least)) / (Math.log(greatest) - Math.log(least))) * (RIGHT - LEFT)

  const parts: string[] = []
  let y = TOP
  for (const [index, { load, peer, advantage }] of shown.entries()) {
    if (shown[index - 1]?.load !== load) {
      parts.push(text(16, y + 16, load, 'load'))
      y += HEADING
    }
    parts.push(bar(y, peer, advantage, x))
    y += BAR + GAP
  }
  const bottom = y + 4
  const grid = ticks.map(
    tick =>
      `<line class="${tick === 1 ? 'one' : 'grid'}" x1="${round(x(tick))}" x2="${round(x(tick))}" y1="${TOP - 8}" y2="${bottom}"/>` +
      text(x(tick), bottom + 18, `${tick} ×`, 'quiet middle'),
  )
  const height = bottom + 32
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">
  <title>${escaped(title)}</title>
  <style>${STYLE}
  </style>
  <rect class="paper" width="${WIDTH}" height="${height}"/>
  ${text(16, 26, title, 'title')}
  ${text(16, 46, 'Factor by which auth-relay is better than each peer; line: spread of the rounds; diamond: goal', 'quiet')}
  ${[...grid, ...parts].join('\n  ')}
</svg>
`
}

function bar(y: number, peer: string, { median, low, high, goal }: Advantage, x: (factor: number) => number): string {
  const middle = y + BAR / 2
  const [from, to] = [Math.min(x(1), x(median)), Math.max(x(1), x(median))]
  const figure = new Intl.NumberFormat('en', { maximumSignificantDigits: 3 }).format(median)
  return [
    text(LEFT - 14, middle + 4, peer, 'end'),
    `<rect class="${median >= 1 ? 'better' : 'worse'}" x="${round(from)}" y="${y}" width="${round(Math.max(1, to - from))}" height="${BAR}" rx="2"/>`,
    `<line class="spread" x1="${round(x(low))}" x2="${round(x(high))}" y1="${middle}" y2="${middle}"/>`,
    ...(goal === null ? [] : [`<path class="goal" d="M${round(x(goal))} ${middle - 7}l6 7l-6 7l-6 -7z"/>`]),
    text(WIDTH - 16, middle + 4, `${figure} ×`, 'end'),
  ].join('')
}

const text = (x: number, y: number, words: string, kind: string): string =>
  `<text class="${kind}" x="${round(x)}" y="${round(y)}">${escaped(words)}</text>`

const round = (figure: number): number => Math.round(figure * 10) / 10

const escaped = (words: string): string =>
  words.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
