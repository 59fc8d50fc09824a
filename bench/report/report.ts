import { writeFileSync } from 'node:fs'
import * as v from 'valibot'

/** The environment variable that names the file to which a bench writes its report. */
export const REPORT_VARIABLE = 'BENCH_REPORT'

/** Share of its time from which a busy load generator limits the figure. */
const GENERATOR_LIMIT = 0.9

const summarySchema = v.object({ median: v.number(), low: v.number(), high: v.number() })
/** Median, least and greatest of the rounds. */
export type Summary = v.InferOutput<typeof summarySchema>

const sideSchema = v.object({
  ...summarySchema.entries,
  /** Median share of its time in which the load generator was busy; null: not measured. */
  generator: v.nullable(v.number()),
})

const rowSchema = v.object({
  load: v.string(),
  unit: v.string(),
  better: v.picklist(['more', 'less']),
  ours: sideSchema,
  peer: v.nullable(v.object({ name: v.string(), ...sideSchema.entries })),
  /** Ratio of auth-relay to the peer, round by round; null without a peer. */
  ratio: v.nullable(summarySchema),
  goal: v.nullable(v.union([v.strictObject({ ratio: v.number() }), v.strictObject({ figure: v.number() })])),
  verdict: v.picklist(['met', 'missed', 'no goal']),
})
/** One figure of auth-relay, beside that of a peer or alone. */
export type Row = v.InferOutput<typeof rowSchema>

const programSchema = v.object({ name: v.string(), version: v.string(), settings: v.string() })
/** The measured program: its version as printed, and every important setting, as text. */
export type MeasuredProgram = v.InferOutput<typeof programSchema>

export const reportSchema = v.object({
  bench: v.string(),
  rows: v.array(rowSchema),
  programs: v.array(programSchema),
  notes: v.array(v.string()),
})
/** The result of a bench. */
export type ReportContent = v.InferOutput<typeof reportSchema>

/** One figure a round, in the order of the rounds. */
export type Measured = {
  readonly rounds: readonly number[]
  /** Share of its time, 0 to 1, in which the load generator was busy: one a round. */
  readonly generator?: readonly number[]
}

export type Figure = {
  /** The load, in the same words for every peer. */
  readonly load: string
  /** Unit of both figures: `sessions/s`, `ms of CPU`. */
  readonly unit: string
  readonly better: 'more' | 'less'
  readonly ours: Measured
  /** Figures of the peer, measured in alternation: the same number of rounds. */
  readonly peer?: Measured & { readonly name: string }
  /** The goal: a ratio to the peer's figure, or a figure. */
  readonly goal?: { readonly ratio: number } | { readonly figure: number }
}

/**
 * The value in the middle; of an even number of values the mean of the two in the middle. Throws
 * RangeError without values.
 */
export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const [low, high] = [sorted[(sorted.length - 1) >> 1], sorted[sorted.length >> 1]]
  if (low === undefined || high === undefined) throw new RangeError('a list without values has no median')
  return (low + high) / 2
}

/** The value below which a share of the values lies; NaN for none. */
export const quantile = (values: readonly number[], share: number): number =>
  values.toSorted((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * share))] ?? Number.NaN

/**
 * Median and spread. Throws RangeError without values, and if a value is not a number, because its
 * round failed.
 */
export function summarize(rounds: readonly number[]): Summary {
  if (!rounds.every(Number.isFinite)) throw new RangeError(`a round without a figure: ${rounds.join(' ')}`)
  return { median: median(rounds), low: Math.min(...rounds), high: Math.max(...rounds) }
}

/**
 * Makes the row of a figure. The ratio is taken round by round, because the speed of the machine
 * drifts between rounds. The verdict is that of the median. Throws RangeError if the numbers of
 * rounds differ.
 */
export function rowOf({ load, unit, better, ours, peer, goal }: Figure): Row {
  if (peer !== undefined && peer.rounds.length !== ours.rounds.length) {
    throw new RangeError(`${load}: ${ours.rounds.length} rounds of auth-relay, ${peer.rounds.length} of ${peer.name}`)
  }
  const ratio =
    peer === undefined ? null : summarize(ours.rounds.map((figure, round) => figure / (peer.rounds[round] ?? 0)))
  const row = { load, unit, better, ours: sideOf(ours), ratio, goal: goal ?? null }
  return {
    ...row,
    peer: peer === undefined ? null : { name: peer.name, ...sideOf(peer) },
    verdict: verdictOf(row),
  }
}

const sideOf = ({ rounds, generator }: Measured) => ({
  ...summarize(rounds),
  generator: generator === undefined ? null : median(generator),
})

function verdictOf({ load, better, ours, ratio, goal }: Omit<Row, 'peer' | 'verdict'>): Row['verdict'] {
  if (goal === null) return 'no goal'
  if ('ratio' in goal && ratio === null) throw new RangeError(`${load}: the goal is a ratio, and there is no peer`)
  const [reached, wanted] = 'ratio' in goal ? [ratio?.median ?? 0, goal.ratio] : [ours.median, goal.figure]
  return (better === 'more' ? reached >= wanted : reached <= wanted) ? 'met' : 'missed'
}

/** The sides that the load generator limited, so that their figures are too low. */
export const limitedSides = ({ ours, peer }: Row): readonly string[] =>
  [{ name: 'auth-relay', ...ours }, ...(peer === null ? [] : [peer])]
    .filter(({ generator }) => generator !== null && generator >= GENERATOR_LIMIT)
    .map(({ name }) => name)

/** Three significant digits, with commas between thousands: 0.0123, 4.57, 812, 12,300. */
export const figureText = (figure: number): string =>
  new Intl.NumberFormat('en', { maximumSignificantDigits: 3 }).format(figure)

/** `1.24 (1.1–1.4)`; without the spread after a single round. */
export const summaryText = ({ median: middle, low, high }: Summary): string =>
  low === high ? figureText(middle) : `${figureText(middle)} (${figureText(low)}–${figureText(high)})`

/** `≥ 2.5 ×` for a ratio to the peer's figure, `≤ 5` for a figure. */
export function goalText({ goal, better }: Pick<Row, 'goal' | 'better'>): string {
  if (goal === null) return '–'
  const sign = better === 'more' ? '≥' : '≤'
  return 'ratio' in goal ? `${sign} ${goal.ratio} ×` : `${sign} ${figureText(goal.figure)}`
}

export const TABLE_HEAD = [
  'load',
  'unit',
  'auth-relay',
  'peer',
  'figure of the peer',
  'ratio',
  'goal',
  'verdict',
] as const

/** The cells of a row under TABLE_HEAD. */
export function cellsOf(row: Row): readonly string[] {
  const limited = limitedSides(row)
  return [
    row.load,
    `${row.unit}${row.peer !== null && row.better === 'less' ? ', less is better' : ''}`,
    summaryText(row.ours),
    row.peer?.name ?? '–',
    row.peer === null ? '–' : summaryText(row.peer),
    row.ratio === null ? '–' : summaryText(row.ratio),
    goalText(row),
    `${row.verdict}${limited.length > 0 ? `; load generator full: ${limited.join(', ')}` : ''}`,
  ]
}

/** A table for a terminal. */
export function formatTable(rows: readonly Row[]): string {
  const lines = [TABLE_HEAD, ...rows.map(cellsOf)]
  const widths = TABLE_HEAD.map((_, column) => Math.max(...lines.map(cells => cells[column]?.length ?? 0)))
  return lines
    .map(cells =>
      cells
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** Parses the output of `finish`. Throws ValiError for other text. */
export const parseReport = (json: string): ReportContent => v.parse(reportSchema, JSON.parse(json))

/** Collects the figures of one bench. */
export class BenchReport {
  readonly #bench: string
  readonly #rows: Row[] = []
  readonly #programs: MeasuredProgram[] = []
  readonly #notes: string[] = []

  /** `bench`: its name on the command line, such as `pop3d`. */
  constructor(bench: string) {
    this.#bench = bench
  }

  add(figure: Figure): void {
    this.#rows.push(rowOf(figure))
  }

  /** Adds the version and the settings of auth-relay or of a peer. */
  measured(program: MeasuredProgram): void {
    this.#programs.push(program)
  }

  /** Adds a sentence below the figures: an omission or a limit of the measurement. */
  note(sentence: string): void {
    this.#notes.push(sentence)
  }

  content(): ReportContent {
    return { bench: this.#bench, rows: this.#rows, programs: this.#programs, notes: this.#notes }
  }

  /** Prints the report, and writes it as JSON if REPORT_VARIABLE names a file. */
  finish(file = process.env[REPORT_VARIABLE]): void {
    console.log(formatTable(this.#rows))
    for (const sentence of this.#notes) console.log(sentence)
    if (file !== undefined) writeFileSync(file, `${JSON.stringify(this.content(), null, 2)}\n`)
  }
}
