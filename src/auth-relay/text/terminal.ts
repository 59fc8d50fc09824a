/** Text for a terminal: escaped characters, counts, colour, tables, a progress bar. */

import { styleText } from 'node:util'
import stringWidth from 'string-width'

/**
 * Escapes text from outside for a terminal: control, format and unassigned characters are written
 * as `\u{…}`, so that no login name can move the cursor or forge a line.
 */
export const printable = (text: string): string =>
  text.replace(/[\\\p{C}\u2028\u2029]/gu, character =>
    character === '\\' ? '\\\\' : `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`,
  )

/** `1 grant`, `2 grants`: a number with its noun. */
export const count = (number: number, one: string, many = `${one}s`): string => `${number} ${number === 1 ? one : many}`

/** Colour for a terminal, and plain text for everything else. */
export type Style = {
  readonly good: (text: string) => string
  readonly bad: (text: string) => string
  readonly warning: (text: string) => string
  readonly faint: (text: string) => string
  readonly strong: (text: string) => string
}

/** NO_COLOR (no-color.org) and TERM=dumb switch colour off on a terminal too. */
export function styleFor(isTerminal: boolean, environment: Readonly<Record<string, string | undefined>>): Style {
  const isPlain = !isTerminal || (environment['NO_COLOR'] ?? '') !== '' || environment['TERM'] === 'dumb'
  const styled =
    (format: Parameters<typeof styleText>[0]) =>
    (text: string): string =>
      isPlain ? text : styleText(format, text, { validateStream: false })
  return {
    good: styled('green'),
    bad: styled('red'),
    warning: styled('yellow'),
    faint: styled('dim'),
    strong: styled('bold'),
  }
}

/**
 * One column of a table: its title, and the way to shorten a table that is too wide: without this
 * column, or with cut cells.
 */
export type Column = {
  readonly title: string
  readonly align?: 'left' | 'right'
  readonly mayDrop?: boolean
  readonly mayShrink?: boolean
}

const GAP = '  '
const LEAST = 6

/**
 * Formats a table of plain text, at most `width` wide if the columns permit it. Columns with
 * `mayDrop` go first, the last one first. Then cells are cut and end in `…`. Cells are one line
 * each and free of control characters (see printable). Every line ends in LF.
 */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[], width: number): string {
  const titles = columns.map(({ title }) => title)
  const drop = columns.findLastIndex(({ mayDrop }) => mayDrop === true)
  const widths = columns.map((_, index) => widest([titles, ...rows], index))
  if (drop >= 0 && totalOf(widths) > width) {
    const without = <T>(cells: readonly T[]): readonly T[] => cells.toSpliced(drop, 1)
    return formatTable(without(columns), rows.map(without), width)
  }
  for (;;) {
    const total = totalOf(widths)
    const longest = columns
      .map(({ mayShrink }, index) => ({ index, width: mayShrink === true ? (widths[index] ?? 0) : 0 }))
      .reduce((best, each) => (each.width > best.width ? each : best), { index: -1, width: LEAST })
    if (total <= width || longest.index < 0) break
    widths[longest.index] = Math.max(LEAST, longest.width - (total - width))
  }
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, index) => pad(cells[index] ?? '', widths[index] ?? 0, align ?? 'left'))
      .join(GAP)
      .trimEnd()
  return [titles, ...rows].map(row => `${line(row)}\n`).join('')
}

const totalOf = (widths: readonly number[]): number =>
  widths.reduce((sum, each) => sum + each, 0) + GAP.length * (widths.length - 1)

/**
 * Maximum of a column. There may be a million rows, which is more than a call accepts as arguments.
 */
const widest = (rows: readonly (readonly string[])[], index: number): number =>
  rows.reduce((most, row) => Math.max(most, columnsOf(row[index] ?? '')), 0)

const ASCII = /^[ -~]*$/

/** Columns of a terminal: two for a wide character, none for a combining one. */
export const columnsOf = (text: string): number => (ASCII.test(text) ? text.length : stringWidth(text))

/** Fills or cuts a text to `width` columns. */
export function pad(text: string, width: number, align: 'left' | 'right' = 'left'): string {
  const shown = columnsOf(text) > width ? `${cut(text, width - 1)}…` : text
  const space = ' '.repeat(Math.max(0, width - columnsOf(shown)))
  return align === 'right' ? space + shown : shown + space
}

const CHARACTERS = new Intl.Segmenter()

/** The characters, as a reader sees them, that fit into `width` columns. */
function cut(text: string, width: number): string {
  let [shown, columns] = ['', 0]
  for (const { segment } of CHARACTERS.segment(text)) {
    columns += columnsOf(segment)
    if (columns > width) break
    shown += segment
  }
  return shown
}

/**
 * A bar on the terminal's standard error, drawn at most ten times a second. Without a terminal it
 * draws nothing.
 */
export class ProgressBar {
  readonly #total: number
  readonly #isTerminal: boolean
  #done = 0
  #drawn = 0

  constructor(total: number, isTerminal = process.stderr.isTTY === true) {
    this.#total = total
    this.#isTerminal = isTerminal && total > 0
  }

  advance(count: number): void {
    this.#done += count
    if (!this.#isTerminal || Date.now() - this.#drawn < 100) return
    this.#drawn = Date.now()
    const part = Math.min(1, this.#done / this.#total)
    const filled = Math.round(part * 40)
    process.stderr.write(
      `\r${'█'.repeat(filled)}${'░'.repeat(40 - filled)} ${String(Math.floor(part * 100)).padStart(3)} %`,
    )
  }

  /** Removes the bar. */
  end(): void {
    if (this.#isTerminal && this.#drawn > 0) process.stderr.write('\r\u001b[K')
  }
}
