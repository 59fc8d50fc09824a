/**
 * The settings of all programs.
 *
 * Each section is a table of rows (grant-sections.ts, pop3-sections.ts). For each row the value
 * comes from the environment, else from the settings file, else from the default. All faults are
 * reported together. The result is frozen.
 */
import { readFileSync } from 'node:fs'
import { parse as parseToml, TomlError } from 'smol-toml'
import * as v from 'valibot'
import { denialOf, errorCodeOf, isAccessDenied, messageOf, nearest, UsageFault } from '../base/errors.ts'
import { createLog, type Log } from '../base/log.ts'
import { handedText } from '../process/inherited-files.ts'
import { ALERTS, AUTHD, DATABASE, GRANTS, STATUS_PAGE, TOP, WRAP } from './grant-sections.ts'
import { POP3D, POPUP, SSLWRAP } from './pop3-sections.ts'
import {
  defaultOf,
  environmentNameOf,
  type Leading,
  presentNameOf,
  type Row,
  type Section,
  type ValuesOf,
} from './rows.ts'

/** Every section of the settings file, in the order in which `auth-relay init` writes them. */
export const SECTIONS = {
  top: TOP,
  database: DATABASE,
  grants: GRANTS,
  popup: POPUP,
  pop3d: POP3D,
  sslwrap: SSLWRAP,
  authd: AUTHD,
  wrap: WRAP,
  statusPage: STATUS_PAGE,
  alerts: ALERTS,
} as const

/** All settings, typed and frozen. */
export type Settings = { readonly [Name in keyof typeof SECTIONS]: ValuesOf<(typeof SECTIONS)[Name]['rows']> }

/** The source of a setting's value, for `auth-relay check`. `line` counts from 1. */
export type Origin =
  | { readonly kind: 'default' }
  | { readonly kind: 'file'; readonly line: number }
  | { readonly kind: 'environment'; readonly variable: string }

/** A setting in the form of the settings file, and its source. */
export type ShownSetting = {
  readonly section: string
  readonly name: string
  readonly written: unknown
  readonly origin: Origin
  /** The former name that the source uses; undefined: the present name. */
  readonly formerName?: string
}

export type LoadedSettings = { readonly settings: Settings; readonly shown: readonly ShownSetting[] }

type Environment = Readonly<Record<string, string | undefined>>

/** Default place of the settings file. */
export const SETTINGS_FILE = '/etc/auth-relay.toml'

/**
 * Reads the settings file; environment variables override it.
 * @throws UsageFault naming every fault at once, each with file, line and remedy.
 */
export function loadSettingsFile(path: string, environment: Environment = process.env): LoadedSettings {
  return parseSettings(readSettingsText(path), path, environment)
}

/**
 * Reads the text of the settings file. During a reload by the supervisor the text comes from the
 * supervisor.
 * @throws UsageFault if the file cannot be read.
 */
export function readSettingsText(path: string): string {
  const handed = handedText(path)
  if (handed !== undefined) return handed
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (isAccessDenied(error)) {
      const { reason, remedy } = denialOf(path)
      throw new UsageFault({ fact: `cannot read the settings file ${path}: ${reason}`, remedy }, error)
    }
    const why = errorCodeOf(error) === 'ENOENT' ? 'it does not exist' : messageOf(error)
    throw new UsageFault(
      `cannot read the settings file ${path}: ${why}: create it with: auth-relay init --config ${path}`,
      error,
    )
  }
}

/** Like loadSettingsFile, for the text of a file. `path` is for the messages. */
export function parseSettings(text: string, path: string, environment: Environment = {}): LoadedSettings {
  let file: Readonly<Record<string, unknown>>
  try {
    file = parseToml(text)
  } catch (error) {
    if (!(error instanceof TomlError)) throw error
    const first = error.message.split('\n', 1)[0] ?? ''
    throw new UsageFault(`${path}:${error.line}: ${first.replace(/^Invalid TOML document: /, '')}`, error)
  }
  const faults: string[] = []
  const shown: ShownSetting[] = []
  const lines = text.split('\n')
  reportUnknown(file, lines, path, faults)
  const read = <Rows extends Section['rows']>(
    section: Section<Rows>,
    leading: Leading = {},
  ): ValuesOf<Rows> | undefined => {
    const table = section.name === '' ? file : tableOf(file[section.name])
    const written: Record<string, unknown> = {}
    const known: ShownSetting[] = []
    for (const [name, row] of Object.entries(section.rows)) {
      const [writtenName, ...unused] = namesIn(table, name, row)
      for (const twice of unused) {
        const line = lineOf(lines, section.name, twice)
        faults.push(`${path}:${line}: ${section.name}.${twice} is the former name of ${name}: write ${name} alone`)
      }
      const inEnvironment = variableOf(environment, section, name, row)
      const origin: Origin =
        inEnvironment !== undefined
          ? { kind: 'environment', variable: inEnvironment.variable }
          : writtenName !== undefined
            ? { kind: 'file', line: lineOf(lines, section.name, writtenName) }
            : { kind: 'default' }
      written[name] =
        inEnvironment !== undefined
          ? row.fromText(inEnvironment.text)
          : writtenName !== undefined
            ? table[writtenName]
            : defaultOf(row, leading)
      const as = inEnvironment?.name ?? writtenName ?? name
      const former = as === name ? {} : { formerName: as }
      known.push({ section: section.name, name, written: written[name], origin, ...former })
    }
    shown.push(...known)
    const result = v.safeParse(v.object(section.rows), written)
    if (result.success) return frozen(result.output)
    for (const { name, origin, formerName = name } of known) {
      const issues = result.issues.filter(issue => issue.path?.[0]?.key === name)
      // Remove duplicates: a number that is not whole and out of its bounds has two issues with the
      // same words.
      const texts = issues.map(issue => `${placeOf(origin, path)}: ${describeIssue(section, formerName, issue)}`)
      faults.push(...new Set(texts))
    }
    return undefined
  }
  const top = read(TOP)
  const database = read(DATABASE)
  const grants = read(GRANTS)
  const popup = read(POPUP)
  const sections = {
    top,
    database,
    grants,
    popup,
    pop3d: read(POP3D, { compat: popup?.compat }),
    sslwrap: read(SSLWRAP),
    authd: read(AUTHD, top && { runDir: top.run_dir }),
    wrap: read(WRAP),
    statusPage: read(STATUS_PAGE),
    alerts: read(ALERTS),
  }
  if (!isComplete(sections) || faults.length > 0) throw new UsageFault(faults.map(oneLine))
  return { settings: Object.freeze(sections), shown }
}

/** No section has a fault. */
const isComplete = (
  sections: { readonly [Name in keyof Settings]: Settings[Name] | undefined },
): sections is Settings => Object.values(sections).every(values => values !== undefined)

/**
 * Refuses to start until the administrator has read the file. Every daemon calls it first.
 * @throws UsageFault while `configured` is false.
 */
export function requireConfigured(settings: Settings, path: string): void {
  if (!settings.top.configured) {
    throw new UsageFault(
      `${path}: read the file, then set configured = true; then run: auth-relay check --config ${path}`,
    )
  }
}

/** Former names that this process has named in its log. */
const warnedNames = new Set<string>()

/**
 * The settings of a daemon, at its start and at each reload. Logs each former name once. `program`
 * is for the log. Throws UsageFault like loadSettingsFile and requireConfigured.
 */
export function loadDaemonSettings(
  program: string,
  path: string,
  environment: Environment = process.env,
  log: Log = createLog(program),
): Settings {
  const { settings, shown } = loadSettingsFile(path, environment)
  requireConfigured(settings, path)
  for (const { section, name, formerName, origin } of shown) {
    if (formerName === undefined) continue
    const present = origin.kind === 'environment' ? `rename ${origin.variable}` : `write ${name}`
    const setting = section === '' ? formerName : `${section}.${formerName}`
    if (warnedNames.has(setting)) continue
    warnedNames.add(setting)
    log.warn('setting_renamed', { setting, reason: `it is called ${name} now: ${present}` })
  }
  return settings
}

function reportUnknown(
  file: Readonly<Record<string, unknown>>,
  lines: readonly string[],
  path: string,
  faults: string[],
): void {
  const sections = Object.values(SECTIONS)
  for (const [key, value] of Object.entries(file)) {
    const section = sections.find(({ name }) => name === key && name !== '')
    if (section === undefined) {
      if (presentNameOf(TOP, key) === undefined) {
        const isTable = typeof value === 'object' && value !== null && !Array.isArray(value)
        const known = isTable ? sections.map(({ name }) => name) : Object.keys(TOP.rows)
        const line = isTable ? lineOfTable(lines, key) : lineOf(lines, '', key)
        faults.push(`${path}:${line}: ${key}: unknown ${isTable ? 'section' : 'setting'}${hint(key, known)}`)
      }
      continue
    }
    if (typeof value !== 'object' || value === null || Array.isArray(value)) {
      faults.push(`${path}:${lineOf(lines, '', key)}: ${key}: is a section: write [${key}] on a separate line`)
      continue
    }
    for (const name of Object.keys(value)) {
      if (presentNameOf(section, name) === undefined) {
        const elsewhere = sections.find(each => presentNameOf(each, name) !== undefined)
        const where =
          elsewhere === undefined
            ? hint(name, Object.keys(section.rows))
            : `; it belongs ${elsewhere.name === '' ? 'to the top of the file' : `under [${elsewhere.name}]`}`
        faults.push(`${path}:${lineOf(lines, key, name)}: ${key}.${name}: unknown setting${where}`)
      }
    }
  }
}

type Formerly = Pick<Row<unknown>, 'formerNames'>

/** The names under which a table of the file contains the setting, the present name first. */
const namesIn = (
  table: Readonly<Record<string, unknown>>,
  name: string,
  { formerNames }: Formerly,
): readonly string[] => [name, ...formerNames].filter(each => Object.hasOwn(table, each))

/** The environment variable that overrides the setting. `name`: the setting's name in it. */
function variableOf(
  environment: Environment,
  section: Section,
  name: string,
  { formerNames }: Formerly,
): { readonly variable: string; readonly name: string; readonly text: string } | undefined {
  for (const each of [name, ...formerNames]) {
    const variable = environmentNameOf(section, name, each)
    const text = environment[variable]
    if (text !== undefined) return { variable, name: each, text }
  }
  return undefined
}

/**
 * Escapes control characters of a fault, so that it has one line and does not change the terminal.
 * A name in quotes may contain any character (TOML 1.0, basic strings).
 */
const oneLine = (fault: string): string =>
  fault.replace(/[\p{C}\u2028\u2029]/gu, character => `\\u{${(character.codePointAt(0) ?? 0).toString(16)}}`)

const hint = (word: string, known: readonly string[]): string => {
  const near = nearest(word, known)
  return near === undefined ? '' : `; did you mean ${near}?`
}

const tableOf = (value: unknown): Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? Object.fromEntries(Object.entries(value)) : {}

const placeOf = (origin: Origin, path: string): string =>
  origin.kind === 'environment'
    ? `environment ${origin.variable}`
    : origin.kind === 'file'
      ? `${path}:${origin.line}`
      : path

const describeIssue = (section: Section, name: string, issue: v.BaseIssue<unknown>): string => {
  const inner = (issue.path ?? [])
    .slice(1) // the name of the setting
    .map(item => (typeof item.key === 'number' ? `[${item.key}]` : `.${String(item.key)}`))
    .join('')
  // A table of a list lacks a setting or has an unknown one. The words of the schema for this are
  // not for an administrator.
  const wrongName = issue.type === 'strict_object' && inner !== ''
  const message = wrongName ? (issue.expected === 'never' ? 'unknown setting' : 'is missing') : issue.message
  return `${section.name === '' ? '' : `${section.name}.`}${name}${inner}: ${message}`
}

/**
 * The line, from 1, of `name = …` below `[section]`. If the setting is written in another way, the
 * line of the table; if the table is too, 1.
 */
function lineOf(lines: readonly string[], section: string, name: string): number {
  let current = ''
  let tableLine = 1
  for (const [index, line] of lines.entries()) {
    const header = /^\s*\[{1,2}\s*([^\]]+?)\s*\]{1,2}/.exec(line)?.[1]
    if (header !== undefined) {
      current = header
      if (header === section) tableLine = index + 1
      if (header === `${section}.${name}`) return index + 1
    } else if (current === section && new RegExp(`^\\s*["']?${name.replace(/[^\w-]/g, '\\$&')}["']?\\s*=`).test(line)) {
      return index + 1
    }
  }
  return tableLine
}

const lineOfTable = (lines: readonly string[], section: string): number =>
  Math.max(
    0,
    lines.findIndex(line => /^\s*\[{1,2}\s*([^\].]+?)\s*[\].]/.exec(line)?.[1] === section),
  ) + 1

/** Freezes the values of a section, and lists among them with their elements. */
function frozen<Values extends object>(values: Values): Readonly<Values> {
  for (const value of Object.values(values)) freezeList(value)
  return Object.freeze(values)
}

function freezeList(value: unknown): void {
  if (!Array.isArray(value)) return
  for (const item of value) freezeList(item)
  Object.freeze(value)
}
