import { readFileSync, writeFileSync } from 'node:fs'
import { toJsonSchema } from '@valibot/to-json-schema'
import type { Row } from '../../src/settings/rows.ts'
import { SECTIONS } from '../../src/settings/settings.ts'

/** Path of the schema. The first line of a settings file names it for editors. */
export const SCHEMA_PATH = new URL('../../deploy/auth-relay.schema.json', import.meta.url).pathname

type JsonSchema = { readonly [key: string]: unknown }

/** The JSON schema (draft 7) of the settings file, made from the table of settings, as text. */
export function settingsSchema(): string {
  const { top, ...sections } = SECTIONS
  const schema: JsonSchema = {
    $schema: 'http://json-schema.org/draft-07/schema#',
    title: 'auth-relay.toml',
    description: 'Settings of auth-relay. Made by scripts/generate/settings-schema.ts from the table of settings.',
    type: 'object',
    additionalProperties: false,
    properties: {
      ...propertiesOf(top.rows),
      ...Object.fromEntries(
        Object.values(sections).map(({ name, doc, rows }) => [
          name,
          { description: doc, type: 'object', additionalProperties: false, properties: propertiesOf(rows) },
        ]),
      ),
    },
  }
  // Validators use the regular expressions of other languages, which do not have ECMAScript's \0.
  return `${JSON.stringify(schema, undefined, 2).replaceAll('\\\\0', '\\\\x00')}\n`
}

const propertiesOf = (rows: Readonly<Record<string, Row<unknown>>>): JsonSchema =>
  Object.fromEntries(
    Object.entries(rows).flatMap(([name, row]) => {
      const property = propertyOf(row)
      const former = row.formerNames.map(
        each => [each, { ...property, description: `Former name of ${name}.` }] as const,
      )
      return [[name, property] as const, ...former]
    }),
  )

/**
 * The schema describes the input of a row. The programs refuse more values, because the schema
 * cannot express the row's transformations.
 */
function propertyOf(row: Row<unknown>): JsonSchema {
  const { $schema, ...form } = toJsonSchema(row, { typeMode: 'input', errorMode: 'ignore' })
  return { description: row.doc, default: row.default, ...form }
}

/** The schema as it is now; empty if there is none. */
export function schemaOnDisk(): string {
  try {
    return readFileSync(SCHEMA_PATH, 'utf8')
  } catch {
    return '' // the schema does not exist yet
  }
}

export const writeSettingsSchema = (): void => writeFileSync(SCHEMA_PATH, settingsSchema())

if (import.meta.main) writeSettingsSchema()
