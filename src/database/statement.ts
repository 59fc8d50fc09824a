/** Statements: their text, their parameters, their values, and their rows. */
import * as v from 'valibot'

/**
 * A statement and the schema of its rows. A row that does not fit is a fault of the program and
 * throws at once.
 */
export type Statement<Row> = {
  readonly text: string
  /** Prepared once per connection under this name. Left out: sent whole each time. */
  readonly name?: string
  readonly row: v.GenericSchema<unknown, Row>
}

/** Values for $1, $2, …; never part of the statement's text. */
export type Value = ArrayElement | readonly ArrayElement[]
export type ArrayElement = string | number | boolean | Date | null

export type Result<Row> = { readonly rows: readonly Row[]; readonly count: number }

/** The parameters of a statement by name, with their types. Their order gives the numbers. */
export class NamedParameters<Name extends string> {
  readonly #places: ReadonlyMap<string, string>

  constructor(types: Readonly<Record<Name, string>>) {
    const named = Object.entries<string>(types)
    this.#places = new Map(named.map(([name, type], index) => [name, `$${index + 1}::${type}`]))
  }

  /** The parameter in the text of the statement, such as `$2::inet[]`. */
  at(name: Name): string {
    const place = this.#places.get(name)
    if (place === undefined) throw new TypeError(`no parameter ${name}`)
    return place
  }

  /** The values in the order of the numbers. */
  values(values: Readonly<Record<Name, Value>>): readonly Value[] {
    const byName = new Map(Object.entries<Value>(values))
    return [...this.#places.keys()].map(name => byName.get(name) ?? null)
  }
}

/** Runs the text of a statement on a connection. */
export type RunQuery = (config: { text: string; values?: unknown[]; name?: string }) => Promise<RawResult>
export type RawResult = { readonly rows: readonly unknown[]; readonly rowCount: number | null }

/** Runs a statement. @throws v.ValiError if a row has another shape. */
export async function runStatement<Row>(
  run: RunQuery,
  { text, name, row }: Statement<Row>,
  values: readonly Value[] = [],
): Promise<Result<Row>> {
  const { rows, rowCount } = await run({
    text,
    values: values.map(value => (isArray(value) ? arrayLiteral(value) : value)),
    ...(name === undefined ? {} : { name }),
  })
  return { rows: rows.map(each => v.parse(row, each)), count: rowCount ?? 0 }
}

/** Array.isArray does not narrow to a readonly array. */
const isArray = (value: Value): value is readonly ArrayElement[] => Array.isArray(value)

/** For statements whose rows are not used. */
export const ignored: v.GenericSchema<unknown, unknown> = v.unknown()

/**
 * bigint and count(*): text on the wire, because a bigint may exceed the safe integers. Values of
 * auth-relay do not.
 */
export const int8 = v.pipe(v.string(), v.regex(/^-?\d+$/), v.transform(Number), v.safeInteger())

/** timestamptz with a finite value. */
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
 * Formats an array as PostgreSQL parses it (manual, section 8.15). The driver would read every
 * element several times, and arrays are most of the octets that authd sends.
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
