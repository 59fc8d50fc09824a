/**
 * One column of a table: its title, and what may happen to it when the table is too wide: it is
 * left out, or its cells are cut.
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
 * A table of plain text, no wider than `width` as far as the columns allow: first those that may be
 * left out go, the last one first, then
 * cells are cut, which ends them in `…`. Cells are one line each and free of control characters
 * (see printable). Every line ends in LF.
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

/** Of a column; there may be a million rows, more than a call takes arguments. */
const widest = (rows: readonly (readonly string[])[], index: number): number =>
  rows.reduce((most, row) => Math.max(most, lengthOf(row[index] ?? '')), 0)

/** Characters, not UTF-16 units. */
const lengthOf = (text: string): number => [...text].length

function pad(text: string, width: number, align: 'left' | 'right'): string {
  const characters = [...text]
  const shown = characters.length > width ? `${characters.slice(0, width - 1).join('')}…` : text
  const space = ' '.repeat(Math.max(0, width - characters.length))
  return align === 'right' ? space + shown : shown + space
}
