import { existsSync, readFileSync } from 'node:fs'
import { BENCHES } from '../benches.ts'
import { ratioChart } from './ratio-chart.ts'
import { parseResult, type Result } from './results-page.ts'

/** Folder of the last result of each bench, in one file each, and of the charts. */
export const RESULTS = new URL('../results/', import.meta.url)

/** The kept results, in the order of the page. */
export const keptResults = (): readonly Result[] =>
  BENCHES.map(({ name }) => new URL(`${name}.json`, RESULTS))
    .filter(file => existsSync(file))
    .map(file => parseResult(readFileSync(file, 'utf8')))

/** The picture of each bench with peers. A comparison of auth-relay with itself has no picture. */
export function chartsOf(results: readonly Result[]): ReadonlyMap<string, string> {
  const charts = new Map<string, string>()
  for (const { bench, title, rows } of results) {
    if (BENCHES.every(({ name, peers }) => name !== bench || peers.length === 0)) continue
    const svg = ratioChart(title, rows)
    if (svg !== undefined) charts.set(bench, svg)
  }
  return charts
}
