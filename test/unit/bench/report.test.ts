import { readFileSync } from 'node:fs'
import { describe, expect, test, vi } from 'vitest'
import {
  BenchReport,
  cellsOf,
  type Figure,
  formatTable,
  limitedSides,
  median,
  parseReport,
  rowOf,
  summarize,
} from '../../../bench/report/report.ts'
import { temporaryDirectory } from '../../harness/temporary-directory.ts'

const figure = (more: Partial<Figure> = {}): Figure => ({
  load: 'short sessions',
  unit: 'sessions/s',
  better: 'more',
  ours: { rounds: [200, 90, 240] },
  peer: { name: 'dovecot', rounds: [100, 50, 100] },
  ...more,
})

describe('rounds', () => {
  test.each([
    [[3], 3],
    [[3, 1], 2],
    [[9, 1, 10], 9],
    [[4, 1, 3, 2], 2.5],
  ])('the median of %j is %d', (values, middle) => expect(median(values)).toBe(middle))

  test('median and spread', () => expect(summarize([2, 9, 4])).toEqual({ median: 4, low: 2, high: 9 }))

  test.each([[[]], [[1, Number.NaN]], [[Number.POSITIVE_INFINITY]]])('%j has no figure', values => {
    expect(() => summarize(values)).toThrow(RangeError)
  })
})

describe('a row', () => {
  test('the ratio is taken round by round; the medians alone would give 2.0', () => {
    const { ours, peer, ratio } = rowOf(figure({ ours: { rounds: [200, 90, 300] } }))
    expect([ours.median, peer?.median]).toEqual([200, 100])
    expect(ratio).toEqual({ median: 2, low: 1.8, high: 3 })
    expect(rowOf(figure({ ours: { rounds: [220, 80, 120] } })).ratio?.median).toBe(1.6)
  })

  test.each([
    ['more', 2, 'met'],
    ['more', 2.01, 'missed'],
    ['less', 2, 'met'],
    ['less', 1.99, 'missed'],
  ] as const)('%s is better, goal %d times the peer, 2 reached: %s', (better, ratio, verdict) => {
    expect(rowOf(figure({ better, goal: { ratio } })).verdict).toBe(verdict)
  })

  test.each([
    ['more', 200, 'met'],
    ['more', 201, 'missed'],
    ['less', 200, 'met'],
    ['less', 199, 'missed'],
  ] as const)('%s is better, absolute goal %d, 200 reached: %s', (better, goal, verdict) => {
    const { peer: _, ...alone } = figure({ better, goal: { figure: goal } })
    expect(rowOf(alone)).toMatchObject({ verdict, peer: null, ratio: null })
  })

  test('without a goal there is no verdict', () => expect(rowOf(figure()).verdict).toBe('no goal'))

  test.each([
    ['another number of rounds', { peer: { name: 'dovecot', rounds: [1] } }],
    ['a peer that did nothing', { peer: { name: 'dovecot', rounds: [1, 0, 1] } }],
  ])('%s is refused', (_, more) => expect(() => rowOf(figure(more))).toThrow(RangeError))

  test('a goal that is a ratio is refused without a peer', () => {
    const { peer: _, ...alone } = figure({ goal: { ratio: 2 } })
    expect(() => rowOf(alone)).toThrow('short sessions: the goal is a ratio, and there is no peer')
  })

  test('a load generator that was too busy is named', () => {
    const ours = { rounds: [200, 90, 240], generator: [0.95, 0.2, 0.91] }
    const row = rowOf(figure({ ours, peer: { name: 'dovecot', rounds: [100, 50, 100], generator: [0.3, 0.99, 0.3] } }))
    expect(limitedSides(row)).toEqual(['auth-relay'])
    expect(cellsOf(row).at(-1)).toBe('no goal; load generator full: auth-relay')
  })
})

test('the table names the compared figures', () => {
  const rows = [
    rowOf(figure({ goal: { ratio: 2.5 } })),
    rowOf({
      load: 'memory',
      unit: 'KB',
      better: 'less',
      ours: { rounds: [9] },
      peer: { name: 'dovecot', rounds: [10] },
    }),
    rowOf({ load: 'sweep', unit: 'ms', better: 'less', ours: { rounds: [12_345] }, goal: { figure: 20_000 } }),
  ]
  expect(formatTable(rows).split('\n')).toEqual([
    'load            unit                auth-relay    peer     figure of the peer  ratio        goal      verdict',
    'short sessions  sessions/s          200 (90–240)  dovecot  100 (50–100)        2 (1.8–2.4)  ≥ 2.5 ×   missed',
    'memory          KB, less is better  9             dovecot  10                  0.9          –         no goal',
    'sweep           ms                  12,300        –        –                   –            ≤ 20,000  met',
  ])
})

test('a report that a bench writes can be read back, and no other text can', () => {
  const directory = temporaryDirectory()
  const printed = vi.spyOn(console, 'log').mockImplementation(() => {})
  try {
    const report = new BenchReport('pop3d')
    report.add(figure({ goal: { ratio: 2.5 } }))
    report.measured({ name: 'dovecot', version: '2.3.19.1', settings: 'ssl = no\n' })
    report.note('One machine.')
    report.finish(`${directory.path}/report.json`)
    expect(parseReport(readFileSync(`${directory.path}/report.json`, 'utf8'))).toEqual(report.content())
    expect(printed.mock.calls.flat()).toEqual([formatTable(report.content().rows), 'One machine.'])
    expect(() => parseReport('{"bench":"pop3d","rows":[{}]}')).toThrow()
  } finally {
    printed.mockRestore()
    directory.remove()
  }
})
