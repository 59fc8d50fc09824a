/** The verb `settings`, and its lines. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { nearest, UsageFault } from '../../base/errors.ts'
import { UNIT_NAMES } from '../../settings/duration.ts'
import { defaultOf, environmentNameOf, presentNameOf, type Section } from '../../settings/rows.ts'
import {
  type LoadedSettings,
  loadSettingsFile,
  type Origin,
  parseSettings,
  SECTIONS,
  SETTINGS_FILE,
  type ShownSetting,
} from '../../settings/settings.ts'
import { describeOrigin, hideSecret } from '../text/settings-text.ts'
import { printable, type Style, styleFor } from '../text/terminal.ts'
import type { Surroundings, Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

/**
 * `auth-relay settings`: lists every setting with its meaning, its default and its current value.
 */
export const settings: Verb = (program, { environment, print, isTerminal, columns }, choose) => {
  withConfigOption(program.command('settings'))
    .argument('[names...]', 'settings or sections, such as exp_time, wrap.listen or grants; without a name all')
    .description('print settings: present value, origin, default, unit and meaning')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay settings                      every setting
  auth-relay settings exp_time             one setting
  auth-relay settings grants wrap.listen   a section, and one setting of another
  auth-relay settings --json | jq '.settings[] | select(.origin.type != "default")'

Without /etc/auth-relay.toml the values are the defaults. Passwords are left out.`,
    )
    .action((names: readonly string[], options: Options) => {
      choose({
        kind: 'command',
        run: async () => {
          const config = resolve(options.config)
          const described = describeSettings(settingsOrDefaults(config, environment))
          const chosen = chooseSettings(described, names)
          print(
            options.json === true
              ? `${JSON.stringify({ config: existsSync(config) ? config : null, settings: chosen.map(forScripts) })}\n`
              : formatDescribed(chosen, styleFor(isTerminal, environment), Math.min(columns, 100)),
          )
          return 0
        },
      })
    })
}

type Options = { config: string; json?: true }

/**
 * The settings of the site; the defaults where the usual file is missing, as before `auth-relay
 * init`.
 */
function settingsOrDefaults(config: string, environment: Surroundings['environment']): LoadedSettings {
  return config === SETTINGS_FILE && !existsSync(config)
    ? parseSettings('', config, environment)
    : loadSettingsFile(config, environment)
}

/** A setting as it is printed. */
export type DescribedSetting = {
  /** Empty: the top of the file. */
  readonly section: string
  readonly name: string
  readonly value: unknown
  readonly origin: Origin
  readonly default: unknown
  /** The unit of a plain number; null where numbers have none. */
  readonly unit: string | null
  readonly environment: string
  readonly formerNames: readonly string[]
  readonly doc: string
}

/** The form of the JSON output, where the tag of the origin is called `type`. */
function forScripts(setting: DescribedSetting): object {
  const { kind, ...place } = setting.origin
  return { ...setting, origin: { type: kind, ...place } }
}

/** Every setting, in the order of the settings file. */
export function describeSettings({ settings: { top, popup }, shown }: LoadedSettings): readonly DescribedSetting[] {
  const sections = new Map(Object.values<Section>(SECTIONS).map(section => [section.name, section]))
  return shown.map(hideSecret).flatMap(({ section: sectionName, name, written, origin }: ShownSetting) => {
    const section = sections.get(sectionName)
    const row = section?.rows[name]
    if (section === undefined || row === undefined) return []
    return [
      {
        section: sectionName,
        name,
        value: written,
        origin,
        default: defaultOf(row, { compat: popup.compat, runDir: top.run_dir }),
        unit: row.unit === undefined ? null : UNIT_NAMES[row.unit],
        environment: environmentNameOf(section, name),
        formerNames: row.formerNames,
        doc: row.doc,
      },
    ]
  })
}

/**
 * The settings for these names: a section, SECTION.NAME, or a name alone, which may be in several
 * sections. @throws UsageFault for an unknown name, with the nearest one.
 */
export function chooseSettings(
  settings: readonly DescribedSetting[],
  names: readonly string[],
): readonly DescribedSetting[] {
  if (names.length === 0) return settings
  const faults: string[] = []
  const chosen = new Set<DescribedSetting>()
  for (const wanted of names) {
    const found = settings.filter(setting => isMeant(setting, wanted))
    for (const setting of found) chosen.add(setting)
    if (found.length > 0) continue
    const known = settings.flatMap(({ section, name }) => [name, section, `${section}.${name}`])
    const near = nearest(wanted, known)
    faults.push(
      `there is no setting ${printable(wanted)}${near === undefined ? '' : `; did you mean ${near}?`}: auth-relay settings lists all`,
    )
  }
  if (faults.length > 0) throw new UsageFault(faults)
  return settings.filter(setting => chosen.has(setting))
}

function isMeant({ section, name }: DescribedSetting, wanted: string): boolean {
  if (wanted === section && section !== '') return true
  const [, sectionWanted, nameWanted = ''] = /^(?:([^.]+)\.)?([^.]+)$/.exec(wanted) ?? []
  const table = Object.values<Section>(SECTIONS).find(each => each.name === section)
  if (table === undefined || presentNameOf(table, nameWanted) !== name) return false
  return sectionWanted === undefined || sectionWanted === section
}

/** A paragraph for each setting: a possible line of the file, then its meaning. */
export function formatDescribed(
  settings: readonly DescribedSetting[],
  style: Pick<Style, 'faint' | 'strong'>,
  width: number,
): string {
  let text = ''
  for (const [section, members] of Map.groupBy(settings, each => each.section)) {
    text += `${text === '' ? '' : '\n'}${style.strong(section === '' ? 'For every program' : `[${section}]`)}\n`
    for (const { name, value, origin, default: fallback, unit, environment, formerNames, doc } of members) {
      const facts = [
        `default ${JSON.stringify(fallback)}`,
        ...(unit === null ? [] : [`unit ${unit}`]),
        `environment ${environment}`,
        ...formerNames.map(former => `former name ${former}`),
      ]
      text += `\n  ${name} = ${printable(JSON.stringify(value))}  ${style.faint(`(${describeOrigin(origin)})`)}\n`
      text += wrapped(doc, width)
      text += style.faint(wrapped(facts.join(', '), width))
    }
  }
  return text
}

const INDENT = '      '

function wrapped(text: string, width: number): string {
  const lines = ['']
  for (const word of text.split(' ')) {
    const last = lines.at(-1) ?? ''
    if (last !== '' && INDENT.length + last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = last === '' ? word : `${last} ${word}`
  }
  return lines.map(line => `${INDENT}${line}\n`).join('')
}
