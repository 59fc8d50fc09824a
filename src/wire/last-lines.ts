/** The file of authd with the newest line of each login source, which `auth-relay status` reads. */

import * as v from 'valibot'

/** The newest line of a login source. */
export type LastLine = {
  /** When authd read the line, in milliseconds since 1970. */
  readonly at: number
  readonly text: string
}

/** The file below `state_dir` in which authd keeps the newest line of each login source. */
export const LAST_LINES_FILE = 'authd/last-lines.json'

/** Characters of a line that are kept. */
const MAX_TEXT = 300

/** Name of a login source in the file: `socket`, `fifo`, `tcp`, `journal`, or `file:/PATH`. */
export const lastLineKey = (source: string, path?: string): string =>
  path === undefined ? source : `${source}:${path}`

/** The text of the file. */
export const formatLastLines = (lines: ReadonlyMap<string, LastLine>): string =>
  JSON.stringify(
    Object.fromEntries([...lines].map(([key, { at, text }]) => [key, { at, text: text.slice(0, MAX_TEXT) }])),
  )

const storedLines = v.pipe(v.string(), v.parseJson(), v.record(v.string(), v.unknown()))
const lastLine = v.object({ at: v.pipe(v.number(), v.finite()), text: v.string() })

/** Inverse of formatLastLines. Entries that cannot be read are left out. */
export function parseLastLines(json: string): Map<string, LastLine> {
  const found = new Map<string, LastLine>()
  const stored = v.safeParse(storedLines, json)
  if (!stored.success) return found // the file was overwritten or damaged
  for (const [key, entry] of Object.entries(stored.output)) {
    const line = v.safeParse(lastLine, entry)
    if (line.success) found.set(key, line.output)
  }
  return found
}
