import { existsSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { stringify } from 'smol-toml'
import { SECTIONS } from '../../settings/settings.ts'

/** Values that differ from the defaults, by section and name, as they stand in a settings file. */
export type Overrides = Readonly<Record<string, Readonly<Record<string, unknown>>>>

export type SettingsTextOptions = {
  /** The JSON schema that the first line names for editors, by its path or address. */
  readonly schema?: string | undefined
  /** Comment lines at the top of the file, without `#`. */
  readonly head: readonly string[]
  /** Also write what each setting of the file means. */
  readonly withMeanings?: boolean
  /** Also write what every setting means, and those that keep their default, commented out. */
  readonly withDefaults: boolean
}

const WIDTH = 100

/**
 * A settings file made from the settings' own table. Lists of tables (`sslwrap.listener`) come last
 * in their section, as TOML demands.
 * @throws TypeError for an override that names no setting.
 */
export function formatSettings(
  overrides: Overrides,
  { schema, head, withMeanings = false, withDefaults }: SettingsTextOptions,
): string {
  const lines: string[] = [...(schema === undefined ? [] : [`#:schema ${schema}`]), ...head.map(comment)]
  const sections = Object.values(SECTIONS)
  for (const name of Object.keys(overrides)) {
    if (!sections.some(section => section.name === name)) throw new TypeError(`there is no section ${name}`)
  }
  for (const { name: section, doc, rows } of sections) {
    const values = overrides[section] ?? {}
    for (const name of Object.keys(values)) {
      if (!Object.hasOwn(rows, name)) throw new TypeError(`there is no setting ${section}.${name}`)
    }
    if (!withDefaults && Object.keys(values).length === 0) continue
    lines.push('')
    if (withDefaults && doc !== '') lines.push(comment(doc))
    if (section !== '') lines.push(`[${section}]`)
    const tables: string[] = []
    for (const [name, row] of Object.entries(rows)) {
      const isSet = Object.hasOwn(values, name)
      const value = isSet ? values[name] : row.default
      if (isListOfTables(value)) {
        if (withMeanings && !withDefaults) tables.push('', ...wrap(row.doc))
        tables.push(...value.flatMap(table => ['', `[[${section}.${name}]]`, stringify(table).trimEnd()]))
        continue
      }
      const assignment = stringify({ [name]: value }).trimEnd()
      if (withDefaults) lines.push('', ...wrap(row.doc))
      else if (withMeanings && isSet)
        lines.push(...(['', `[${section}]`].includes(lines.at(-1) ?? '') ? [] : ['']), ...wrap(row.doc))
      if (isSet) lines.push(assignment)
      else if (withDefaults) lines.push(...assignment.split('\n').map(line => `#${line}`))
    }
    lines.push(...tables)
  }
  return `${lines.join('\n').trimStart()}\n`
}

/**
 * The path of the settings' JSON schema, which stands above the program that runs; undefined where
 * an installation has none.
 */
export function schemaFile(running = process.argv[1] ?? ''): string | undefined {
  const above = dirname(dirname(running))
  const found = [above, dirname(above)].map(directory => join(directory, SCHEMA)).find(path => existsSync(path))
  return found === undefined ? undefined : realpathSync(found)
}

const SCHEMA = 'deploy/auth-relay.schema.json'

const comment = (line: string): string => (line === '' ? '#' : `# ${line}`)

const isListOfTables = (value: unknown): value is readonly Record<string, unknown>[] =>
  Array.isArray(value) && value.length > 0 && value.every(item => typeof item === 'object' && item !== null)

/** Comment lines no longer than WIDTH, broken at spaces. */
function wrap(text: string): string[] {
  const lines: string[] = []
  let line = ''
  for (const word of text.split(' ')) {
    if (line !== '' && line.length + word.length + 3 > WIDTH) {
      lines.push(comment(line))
      line = word
    } else line = line === '' ? word : `${line} ${word}`
  }
  return [...lines, comment(line)]
}
