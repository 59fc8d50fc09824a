/** One column of a table: its title, and whether it may be cut when the table is too wide. */
export type Column = { readonly title: string; readonly align?: 'left' | 'right'; readonly mayShrink?: boolean }

const GAP = '  '
const LEAST = 6

/**
 * A table of plain text, no wider than `width` as far as the columns that may shrink allow; what is cut ends in `…`. Cells are one
 * line each and free of control characters (see printable). Every line ends in LF.
 */
export function formatTable(columns: readonly Column[], rows: readonly (readonly string[])[], width: number): string {
  const titles = columns.map(({ title }) => title)
  const widths = columns.map((_, index) => Math.max(...[titles, ...rows].map(row => lengthOf(row[index] ?? ''))))
  for (;;) {
    const total = widths.reduce((sum, each) => sum + each, 0) + GAP.length * (columns.length - 1)
    const widest = columns
      .map(({ mayShrink }, index) => ({ index, width: mayShrink === true ? (widths[index] ?? 0) : 0 }))
      .reduce((best, each) => (each.width > best.width ? each : best), { index: -1, width: LEAST })
    if (total <= width || widest.index < 0) break
    widths[widest.index] = Math.max(LEAST, widest.width - (total - width))
  }
  const line = (cells: readonly string[]): string =>
    columns
      .map(({ align }, index) => pad(cells[index] ?? '', widths[index] ?? 0, align ?? 'left'))
      .join(GAP)
      .trimEnd()
  return [titles, ...rows].map(row => `${line(row)}\n`).join('')
}

/** Characters, not UTF-16 units. */
const lengthOf = (text: string): number => [...text].length

function pad(text: string, width: number, align: 'left' | 'right'): string {
  const characters = [...text]
  const shown = characters.length > width ? `${characters.slice(0, width - 1).join('')}…` : text
  const space = ' '.repeat(Math.max(0, width - characters.length))
  return align === 'right' ? space + shown : shown + space
}
