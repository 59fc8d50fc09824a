import { styleText } from 'node:util'

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
