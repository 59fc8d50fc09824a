/** Statements: their text, their values, and their rows. */
import * as v from 'valibot'

/** A statement and what its rows are: rows that do not fit are a mistake of ours, found at once. */
export type Statement<Row> = {
  readonly text: string
  /** Prepared once per connection under this name. Left out: sent whole each time. */
  readonly name?: string
  readonly row: v.GenericSchema<unknown, Row>
}

/** What may be passed as $1, $2, …; never part of the statement's text. */
export type Value = ArrayElement | readonly ArrayElement[]
export type ArrayElement = string | number | boolean | Date | null

export type Result<Row> = { readonly rows: readonly Row[]; readonly count: number }

/** For statements whose rows nobody reads. */
export const ignored: v.GenericSchema<unknown, unknown> = v.unknown()

/** bigint and count(*): text on the wire, because not every bigint is a number; ours are. */
export const int8 = v.pipe(v.string(), v.regex(/^-?\d+$/), v.transform(Number), v.safeInteger())

/** timestamptz that is a moment. */
export const timestamptz = v.date()

/** timestamptz that may be missing or `infinity`: null then. */
export const endTime = v.union([
  v.date(),
  v.null(),
  v.pipe(
    v.literal(Number.POSITIVE_INFINITY),
    v.transform(() => null),
  ),
])

/**
 * An array as the text that PostgreSQL reads (manual, section 8.15). pg would look at every element
 * several times, and the arrays of a batch are most of what authd sends.
 *
 */
export function arrayLiteral(elements: readonly ArrayElement[]): string {
  let text = '{'
  for (const element of elements) {
    if (text.length > 1) text += ','
    text += typeof element === 'string' ? quoted(element) : element instanceof Date ? element.toISOString() : element
  }
  return `${text}}`
}

const quoted = (element: string): string =>
  `"${element.includes('"') || element.includes('\\') ? element.replaceAll(/["\\]/g, String.raw`\$&`) : element}"`
