/** The fields of a line in the log of an auth-relay program. */
export type LogLine = { readonly program: string; readonly fields: Readonly<Record<string, string>> }

const ESCAPE = /\\(?:u\{(?<code>[0-9a-f]+)\}|(?<mark>.))/gu

/**
 * Reads `popup: level=info event=login_accepted user="a b"`. Returns undefined for lines of another
 * form, such as ready lines, stack traces and lines of other programs.
 */
export function parseLogLine(line: string): LogLine | undefined {
  const { program, rest } =
    /^(?<program>[a-z0-9-]+):(?<rest>(?: [a-z_0-9]+=(?:"(?:[^"\\]|\\.)*"|[^" ]+))+)$/iu.exec(line)?.groups ?? {}
  if (program === undefined || rest === undefined) return undefined
  const fields: Record<string, string> = {}
  for (const { groups } of rest.matchAll(/ (?<key>[a-z_0-9]+)=(?:"(?<quoted>(?:[^"\\]|\\.)*)"|(?<bare>[^" ]+))/giu)) {
    const { key = '', quoted, bare = '' } = groups ?? {}
    fields[key] = quoted === undefined ? bare : unescaped(quoted)
  }
  return { program, fields }
}

const unescaped = (text: string): string =>
  text.replace(ESCAPE, (_all, code: string | undefined, mark: string | undefined) =>
    code === undefined ? (mark ?? '') : String.fromCodePoint(Number.parseInt(code, 16)),
  )
