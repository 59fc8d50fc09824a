import { readFileSync } from 'node:fs'
import { parse } from 'smol-toml'
import { messageOf, UsageFault } from '../../base/errors.ts'

/** Reads the `[wrap]` table of a settings file without checking it. Throws UsageFault. */
export function readWrapTable(file: string): Readonly<Record<string, unknown>> {
  try {
    const { wrap } = parse(readFileSync(file, 'utf8'))
    return typeof wrap === 'object' && !Array.isArray(wrap) ? Object.fromEntries(Object.entries(wrap)) : {}
  } catch (error) {
    // A fault has one line, but a message of the TOML parser shows the place in several.
    const why = messageOf(error).split('\n', 1)[0]
    throw new UsageFault(`cannot read the settings file ${file}: ${why}`, error)
  }
}
