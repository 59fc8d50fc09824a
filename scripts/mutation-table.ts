import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import * as v from 'valibot'

/**
 * Writes the results of `npm run test:mutation` into the table of test/mutation/RESULT.md. Rows of
 * files that this run did not mutate stay while the file exists. The text around the table stays.
 * The first argument names a report; without it the report of the last run is read.
 */
const REPORT = process.argv[2] ?? new URL('../node_modules/.cache/mutation.json', import.meta.url)
const PAGE = new URL('../test/mutation/RESULT.md', import.meta.url)
const ROOT = new URL('..', import.meta.url)
const MARK = '<!-- table -->'

const report = v.object({
  files: v.record(v.string(), v.object({ mutants: v.array(v.object({ status: v.string() })) })),
})

type Row = { readonly name: string; readonly killed: number; readonly survived: number; readonly unreached: number }

const page = readFileSync(PAGE, 'utf8')
const earlier = [...page.matchAll(/^\| `([^`]+)` \| (\d+) \| (\d+) \| (\d+) \|/gm)].map(
  ([, name = '', ...counts]): Row => {
    const [killed = 0, survived = 0, unreached = 0] = counts.map(Number)
    return { name, killed, survived, unreached }
  },
)
const current = Object.entries(v.parse(report, JSON.parse(readFileSync(REPORT, 'utf8'))).files).map(
  ([name, { mutants }]): Row => {
    const count = (...wanted: readonly string[]): number =>
      mutants.filter(({ status }) => wanted.includes(status)).length
    return {
      name,
      killed: count('Killed', 'Timeout'),
      survived: count('Survived'),
      unreached: count('NoCoverage'),
    }
  },
)
const mutated = new Set(current.map(({ name }) => name))
const kept = earlier.filter(({ name }) => !mutated.has(name) && existsSync(new URL(name, ROOT)))
const rows = [...kept, ...current].sort((a, b) => (a.name < b.name ? -1 : 1))
const sum = (of: (row: Row) => number): number => rows.reduce((total, row) => total + of(row), 0)
const all: Row = {
  name: 'all',
  killed: sum(row => row.killed),
  survived: sum(row => row.survived),
  unreached: sum(row => row.unreached),
}
const percent = ({ killed, survived, unreached }: Row): string => {
  const mutants = killed + survived + unreached
  return mutants === 0 ? '–' : `${((100 * killed) / mutants).toFixed(1)} %`
}
const line = (row: Row): string =>
  `| ${row.name === 'all' ? row.name : `\`${row.name}\``} | ${row.killed} | ${row.survived} | ${row.unreached} | ${percent(row)} |`
const table = [
  '| file | killed | survived | not reached | score |',
  '| --- | ---: | ---: | ---: | ---: |',
  ...rows.map(line),
  line(all),
].join('\n')

const [head, , rest] = page.split(MARK)
writeFileSync(PAGE, [head, `\n${table}\n`, rest].join(MARK))
console.log(table)
