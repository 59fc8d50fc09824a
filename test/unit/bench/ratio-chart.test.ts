import { describe, expect, test } from 'vitest'
import { advantageOf, ratioChart, ticksOf } from '../../../bench/report/ratio-chart.ts'
import { type Figure, rowOf } from '../../../bench/report/report.ts'

const figure = (more: Partial<Figure> = {}): Figure => ({
  load: 'short sessions',
  unit: 'sessions/s',
  better: 'more',
  ours: { rounds: [100, 200, 400] },
  peer: { name: 'dovecot', rounds: [100, 100, 100] },
  goal: { ratio: 2.5 },
  ...more,
})
const row = (more: Partial<Figure> = {}) => rowOf(figure(more))

describe('the factor of improvement', () => {
  test('more is better: the ratio itself', () => {
    expect(advantageOf(row())).toEqual({ median: 2, low: 1, high: 4, goal: 2.5 })
  })

  test('less is better: inverted, with goal and spread', () => {
    expect(advantageOf(row({ better: 'less', goal: { ratio: 0.5 } }))).toEqual({
      median: 0.5,
      low: 0.25,
      high: 1,
      goal: 2,
    })
  })

  test('an absolute goal is not on this scale', () => {
    expect(advantageOf(row({ goal: { figure: 5 } }))?.goal).toBeNull()
  })
})

test.each([
  [0.5, 2, [0.5, 1, 2]],
  [0.4, 2.1, [0.2, 0.5, 1, 2, 5]],
  [0.05, 12, [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20]],
])('ticks from %d to %d', (low, high, ticks) => expect(ticksOf(low, high)).toEqual(ticks))

describe('the chart', () => {
  const svg = ratioChart('POP3 <sessions> & "more"', [
    row(),
    row({ peer: { name: 'courier', rounds: [400, 400, 400] } }),
    row({ load: 'memory', unit: 'KB', better: 'less', goal: { ratio: 0.5 } }),
  ])

  test('a load has one heading and a bar for each peer, blue if auth-relay is better', () => {
    expect(svg?.match(/class="load"[^<]*/g)).toEqual([
      'class="load" x="16" y="80">short sessions: sessions/s',
      'class="load" x="16" y="160">memory: KB',
    ])
    expect(svg?.match(/<rect class="(better|worse)"/g)).toEqual([
      '<rect class="better"',
      '<rect class="worse"',
      '<rect class="worse"',
    ])
  })

  test('twice as good and half as good have the same distance from 1', () => {
    const bars = [...(svg ?? '').matchAll(/<rect class="(?:better|worse)" x="([\d.]+)" y="\d+" width="([\d.]+)"/g)]
    const widths = bars.map(([, , width]) => Number(width))
    expect(widths[0]).toBeCloseTo(widths[1] ?? 0, 0)
    const [better, worse] = bars.map(([, x]) => Number(x))
    expect((worse ?? 0) + (widths[1] ?? 0)).toBeCloseTo(better ?? 0, 0)
  })

  test('a goal is a diamond, and text cannot break the picture', () => {
    expect(svg?.match(/class="goal" d=/g)).toHaveLength(3)
    expect(svg).toContain('POP3 &lt;sessions&gt; &amp; &quot;more&quot;')
    expect(svg).not.toMatch(/NaN|Infinity|undefined/)
  })

  test('a row without a goal is omitted, unless no row has one', () => {
    const { goal: _, ...without } = { ...figure(), load: 'p99' }
    const rows = [row(), rowOf(without)]
    expect(ratioChart('x', rows)).not.toContain('p99')
    expect(ratioChart('x', rows.slice(1))).toContain('p99')
  })

  test('without a peer there is no chart', () => {
    expect(ratioChart('x', [rowOf({ load: 'l', unit: 'u', better: 'more', ours: { rounds: [1] } })])).toBeUndefined()
  })
})
