/** A line on a terminal: typed by a user or printed by a program. */
export type TerminalLine = { readonly type: 'typed' | 'printed'; readonly text: string }

const [FONT, LINE, WIDTH_OF_CHARACTER, MARGIN, BAR] = [13, 18, 7.83, 16, 30]
const COLOURS = {
  back: '#1b1f27',
  bar: '#2a303c',
  printed: '#c8d0dc',
  typed: '#ffffff',
  prompt: '#6cc48d',
  dots: ['#e0645c', '#e0b44f', '#6cc48d'],
}

/** A picture of a terminal with these lines. Lines longer than `columns` are folded. */
export function terminalSvg(title: string, lines: readonly TerminalLine[], columns = 112): string {
  const rows = lines.flatMap(line => fold(line, columns))
  const width = Math.ceil(columns * WIDTH_OF_CHARACTER + 2 * MARGIN)
  const height = BAR + rows.length * LINE + 2 * MARGIN
  const texts = rows.map(({ type, text, isFirst }, index) => {
    const y = BAR + MARGIN + index * LINE + FONT
    const prompt = type === 'typed' && isFirst ? `<tspan fill="${COLOURS.prompt}">$ </tspan>` : ''
    const weight = type === 'typed' ? ' font-weight="bold"' : ''
    return `<text x="${MARGIN}" y="${y}" fill="${COLOURS[type]}"${weight}>${prompt}${escaped(text)}</text>`
  })
  const dots = COLOURS.dots.map(
    (fill, index) => `<circle cx="${MARGIN + 4 + index * 18}" cy="${BAR / 2}" r="5.5" fill="${fill}"/>`,
  )
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}">
<rect width="100%" height="100%" rx="8" fill="${COLOURS.back}"/>
<path d="M0 8a8 8 0 0 1 8-8h${width - 16}a8 8 0 0 1 8 8v${BAR - 8}H0z" fill="${COLOURS.bar}"/>
${dots.join('')}
<text x="${width / 2}" y="${BAR / 2 + 4}" fill="${COLOURS.printed}" font-family="sans-serif" font-size="12" text-anchor="middle">${escaped(title)}</text>
<g font-family="ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace" font-size="${FONT}">
${texts.join('\n')}
</g>
</svg>
`
}

type Row = TerminalLine & { readonly isFirst: boolean }

/**
 * Folds a line into rows of at most `columns` characters. A typed line begins with a prompt and is
 * folded at a space.
 */
function fold({ type, text }: TerminalLine, columns: number): readonly Row[] {
  const rows: Row[] = []
  let rest = text
  do {
    const room = columns - (type === 'typed' && rows.length === 0 ? 2 : 0)
    const space = rest.lastIndexOf(' ', room - 2)
    const end = rest.length <= room ? rest.length : type === 'typed' && space > 0 ? space : room
    const row = rest.slice(0, end)
    rest = rest.slice(end).replace(/^ /, type === 'typed' ? '    ' : ' ')
    rows.push({ type, text: rest !== '' && type === 'typed' ? `${row} \\` : row, isFirst: rows.length === 0 })
  } while (rest !== '')
  return rows
}

const escaped = (text: string): string =>
  text
    .replaceAll('&', '&amp;')
    .replaceAll('<', '&lt;')
    .replaceAll('>', '&gt;')
    .replaceAll('"', '&quot;')
    .replaceAll(/[^\P{C}]/gu, '')
    // Renderers ignore xml:space and merge spaces.
    .replaceAll(' ', '\u00a0')
