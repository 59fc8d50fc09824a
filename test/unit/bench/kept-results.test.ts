import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { BENCHES } from '../../../bench/benches.ts'
import { chartsOf, keptResults } from '../../../bench/report/kept-results.ts'
import { resultsPage } from '../../../bench/report/results-page.ts'
import { filledIn } from '../../../bench/scale/scale-page.ts'

const read = (path: string): string => readFileSync(new URL(`../../../${path}`, import.meta.url), 'utf8')
const results = keptResults()
const charts = chartsOf(results)

// After a change to a page: npm run bench -- --page
test('the page of results and its charts agree with the kept results', () => {
  expect(results.map(({ bench }) => bench)).toEqual(BENCHES.map(({ name }) => name))
  expect(read('bench/RESULTS.md')).toBe(resultsPage(results, charts))
  expect([...charts.keys()]).toEqual(['pop3s', 'growth', 'pop3d', 'tls', 'gate'])
  for (const [bench, svg] of charts) expect(read(`bench/results/${bench}.svg`)).toBe(svg)
})

test('the tables of SCALE are calculated from the kept results', () => {
  const page = read('docs/SCALE.md')
  expect(filledIn(page, results)).toBe(page)
})
