import * as v from 'valibot'
import { cellsOf, limitedSides, type Row, reportSchema, TABLE_HEAD } from './report.ts'

const machineSchema = v.object({
  cpu: v.string(),
  cores: v.number(),
  memoryGb: v.number(),
  kernel: v.string(),
  system: v.string(),
  node: v.string(),
})
export type Machine = v.InferOutput<typeof machineSchema>

const resultSchema = v.object({
  ...reportSchema.entries,
  title: v.string(),
  command: v.string(),
  machine: machineSchema,
  /** Date of the run. */
  day: v.string(),
  /** Share of the machine's processor time, 0 to 1, that other work used. */
  otherWork: v.number(),
})
/** The report of one bench, with host, date and conditions. */
export type Result = v.InferOutput<typeof resultSchema>

/** Parses a kept result. Throws ValiError for other text. */
export const parseResult = (json: string): Result => v.parse(resultSchema, JSON.parse(json))

/** Share of other work on the machine above which absolute figures are rough. */
const ROUGH = 0.1

/**
 * The page of all results, in Markdown. `charts`: the benches that have a picture beside the page.
 */
export function resultsPage(results: readonly Result[], charts: { has(bench: string): boolean }): string {
  return `# Results

Written by \`npm run bench\`; do not edit. [README.md](README.md) describes the benches and how to read the figures.

Each figure is the median of the rounds, with the least and the greatest in parentheses. auth-relay and the peers were measured
alternately within one run. A ratio is the figure of auth-relay divided by the figure of the peer, **round by round**. Only
ratios apply to other machines. A figure with the note \`load generator full\` is a lower bound.

${summaryOf(results)}
${results.map(result => section(result, charts.has(result.bench))).join('\n')}`
}

function summaryOf(results: readonly Result[]): string {
  const missed = results.flatMap(({ rows, title }) =>
    rows.filter(({ verdict }) => verdict === 'missed').map(row => ({ title, row })),
  )
  const met = results.flatMap(({ rows }) => rows.filter(({ verdict }) => verdict === 'met')).length
  const lines = missed.map(({ title, row }) => {
    const [load, unit, ours, peer, , ratio, goal] = cellsOf(row)
    return `- ${title}: ${load}, ${unit}${row.peer === null ? `: ${ours}` : `, compared with ${peer}: ${ratio}`}; goal ${goal}\n`
  })
  return `Goals met: ${met}. Missed: ${missed.length}${missed.length === 0 ? '.' : ':'}\n\n${lines.join('')}`
}

function section(result: Result, hasChart: boolean): string {
  const { bench, title, rows, programs, notes, command, machine, day, otherWork } = result
  const share = `${Math.round(otherWork * 100)} %`
  const limited = rows.filter(row => limitedSides(row).length > 0).length
  return `## ${title}

\`${command}\`, ${day}: ${machine.cores} cores (${machine.cpu}), ${machine.memoryGb} GB, ${machine.system}, Linux ${machine.kernel},
Node.js ${machine.node}. Other work used ${share} of the processors${otherWork > ROUGH ? ': **absolute figures are rough**' : ''}.
${limited > 0 ? `The load generator was full in ${limited} of ${rows.length} rows.\n` : ''}${notes.map(note => `\n${note}\n`).join('')}
${hasChart ? `![${title}: factor by which auth-relay is better](results/${bench}.svg)\n\n` : ''}${tableOf(rows)}
${programs.map(programText).join('\n')}`
}

const tableOf = (rows: readonly Row[]): string =>
  [TABLE_HEAD, TABLE_HEAD.map(() => '---'), ...rows.map(cellsOf)]
    .map(cells => `| ${cells.map(cell => cell.replaceAll('|', '\\|')).join(' | ')} |\n`)
    .join('')

const programText = ({
  name,
  version,
  settings,
}: Result['programs'][number]): string => `<details><summary>${name} ${version}</summary>

\`\`\`
${settings.trimEnd()}
\`\`\`

</details>
`
