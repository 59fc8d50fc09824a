import { describe, expect, test } from 'vitest'
import { rowOf } from '../../../bench/report/report.ts'
import { parseResult, type Result, resultsPage } from '../../../bench/report/results-page.ts'

const result = (more: Partial<Result> = {}): Result => ({
  bench: 'pop3d',
  title: 'POP3',
  rows: [
    rowOf({
      load: 'short sessions',
      unit: 'sessions/s',
      better: 'more',
      ours: { rounds: [200, 220, 240], generator: [1, 1, 1] },
      peer: { name: 'dovecot', rounds: [100, 100, 100] },
      goal: { ratio: 2.5 },
    }),
    rowOf({ load: 'sweep', unit: 'ms', better: 'less', ours: { rounds: [3] }, goal: { figure: 5 } }),
  ],
  programs: [{ name: 'dovecot', version: '2.3.19.1', settings: 'ssl = no\n' }],
  notes: ['Without authd.'],
  command: 'npm run bench -- pop3d --rounds 3',
  machine: { cpu: 'A CPU', cores: 2, memoryGb: 24, kernel: '6.1.0', system: 'Debian 12', node: 'v24.0.0' },
  day: '2026-03-05',
  otherWork: 0.02,
  ...more,
})

describe('the page of results', () => {
  const page = resultsPage([result()], new Set(['pop3d']))

  test('begins with the missed goals', () => {
    expect(page).toContain(
      'Goals met: 1. Missed: 1:\n\n- POP3: short sessions, sessions/s, compared with dovecot: 2.2 (2–2.4); goal ≥ 2.5 ×\n',
    )
    expect(resultsPage([result({ rows: [] })], new Set())).toContain('Goals met: 0. Missed: 0.\n')
  })

  test('has a row for each figure, and marks figures that the load generator limited', () => {
    expect(page).toContain(
      '| short sessions | sessions/s | 220 (200–240) | dovecot | 100 | 2.2 (2–2.4) | ≥ 2.5 × | missed; load generator full: auth-relay |\n',
    )
    expect(page).toContain('| sweep | ms | 3 | – | – | – | ≤ 5 | met |\n')
    expect(page).toContain('The load generator was full in 1 of 2 rows.\n')
  })

  test('names the machine, the peers with their settings, and the notes', () => {
    expect(page).toContain('2026-03-05: 2 cores (A CPU), 24 GB, Debian 12, Linux 6.1.0,\nNode.js v24.0.0.')
    expect(page).toContain('<details><summary>dovecot 2.3.19.1</summary>\n\n```\nssl = no\n```\n')
    expect(page).toContain('\nWithout authd.\n')
    expect(page).toContain('](results/pop3d.svg)')
    expect(resultsPage([result()], new Set())).not.toContain('.svg')
  })

  test.each([
    [0.02, false],
    [0.4, true],
  ])('other work used %d of the machine: rough %s', (otherWork, rough) => {
    expect(resultsPage([result({ otherWork })], new Set()).includes('absolute figures are rough')).toBe(rough)
  })
})

test('a kept result can be read back, and no other text can', () => {
  expect(parseResult(JSON.stringify(result()))).toEqual(result())
  expect(() => parseResult(JSON.stringify({ ...result(), machine: 'mine' }))).toThrow()
})
