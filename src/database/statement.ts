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
