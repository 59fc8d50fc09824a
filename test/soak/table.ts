/** Rows of figures as a table of text, numbers to the right. */
export function table(title: string, rows: readonly Readonly<Record<string, string | number>>[]): string {
  const names = Object.keys(rows[0] ?? {})
  const cells = [names, ...rows.map(row => names.map(name => String(row[name] ?? '')))]
  const widths = names.map((_, column) => Math.max(...cells.map(row => row[column]?.length ?? 0)))
  const lines = cells.map(row =>
    row
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[column] ?? 0) : cell.padStart(widths[column] ?? 0)))
      .join('  '),
  )
  return `\n${title}\n${lines.map(line => `  ${line}`).join('\n')}\n`
}

export const megabytes = (octets: number): string => `${(octets / 1_048_576).toFixed(1)} MB`
