import type { Row } from './rows.ts'

/** The settings of one program: a `[name]` table of the settings file. The name `''` is the top of the file. */
export type Section<Rows extends Readonly<Record<string, Row<unknown>>> = Readonly<Record<string, Row<unknown>>>> = {
  readonly name: string
  readonly doc: string
  readonly rows: Rows
}

/** What a section's settings are, once read. */
export type ValuesOf<S extends Section> = {
  readonly [Name in keyof S['rows']]: S['rows'][Name] extends Row<infer Output> ? Output : never
}

/** Declares a section. */
export const defineSection = <const Rows extends Readonly<Record<string, Row<unknown>>>>(
  name: string,
  doc: string,
  rows: Rows,
): Section<Rows> => ({ name, doc, rows })

/** The environment variable that overrides a setting. `writtenName`: a former name of the setting, if it is written so. */
export const environmentNameOf = (section: Section, name: string, writtenName = name): string =>
  (section.rows[name]?.bareName === true || section.name === '' ? writtenName : `${section.name}_${writtenName}`)
    .toUpperCase()
    .replaceAll('-', '_')

/** The present name of a setting that is written by its present or a former name; undefined if there is no such setting. */
export const presentNameOf = ({ rows }: Section, written: string): string | undefined =>
  Object.hasOwn(rows, written)
    ? written
    : Object.entries(rows).find(([, { formerNames }]) => formerNames.includes(written))?.[0]
