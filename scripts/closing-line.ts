import { readFileSync } from 'node:fs'

/** Path of vitest's own report. */
export const REPORT = new URL('../node_modules/.cache/auth-relay/tests.json', import.meta.url)

export type Report = { readonly passed: number; readonly failed: number; readonly skipped: number }

/** The counts of the last run, from vitest's report. Throws if there is no report. */
export function readReport(): Report {
  const report: unknown = JSON.parse(readFileSync(REPORT, 'utf8'))
  const count = (key: string): number => {
    const value: unknown = typeof report === 'object' && report !== null ? Reflect.get(report, key) : undefined
    if (typeof value !== 'number') throw new Error(`the test report has no ${key}`)
    return value
  }
  return {
    passed: count('numPassedTests'),
    failed: count('numFailedTests'),
    skipped: count('numPendingTests') + count('numTodoTests'),
  }
}

/** `N passed, N failed` or `N passed, N failed, N skipped`. */
export const closingLine = ({ passed, failed, skipped }: Report): string =>
  `${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`

if (import.meta.main) console.log(closingLine(readReport()))
