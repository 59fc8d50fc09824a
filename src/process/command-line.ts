/** The arguments that all daemons share. */
import { resolve } from 'node:path'
import manifest from '../../package.json' with { type: 'json' }
import { UsageFault } from '../base/errors.ts'

/** A daemon's command line: the part that all daemons share. */
export type DaemonWords =
  /** `text` goes to standard output. */
  | { readonly kind: 'about'; readonly text: string }
  /** Serve by this settings file. `config`: an absolute path. */
  | { readonly kind: 'serve'; readonly config: string }
  /** Arguments of the program itself. The first one does not begin with two dashes. */
  | { readonly kind: 'own' }

/** The options that all daemons share, for the end of their help. Only some read settings. */
export const commonHelp = (settingsFile: string | undefined): string =>
  [
    ...(settingsFile === undefined ? [] : [`  --config FILE     settings file; default ${settingsFile}`]),
    '  -h, --help        print this help',
    '  -V, --version     print the version',
    '',
  ].join('\n')

/** The fault of an unknown option. `command`: the program, or the program and its verb. */
export const unknownOption = (command: string, option: string, similar?: string): string =>
  `unknown option ${option}${similar === undefined ? '' : `; did you mean ${similar}?`}: see ${command} --help`

/** The fault of a `--config` without a file. */
export const missingSettingsFile = (program: string): string =>
  `--config: the settings file is missing: write --config FILE, or see ${program} --help`

/** The words before `end`, or all words. The words after it belong to another program. */
export function wordsBefore(end: string, args: readonly string[]): readonly string[] {
  const at = args.indexOf(end)
  return at < 0 ? args : args.slice(0, at)
}

/** The first option that asks for the help or for the version. It overrides all other words. */
export function aboutOption(words: readonly string[]): 'help' | 'version' | undefined {
  const option = words.find(word => ['--help', '-h', '--version', '-V'].includes(word))
  if (option === undefined) return undefined
  return option === '--help' || option === '-h' ? 'help' : 'version'
}

/** Throws UsageFault if `--config` is given twice, because only one file can have an effect. */
export function refuseSecondConfig(words: readonly string[]): void {
  if (words.filter(word => word === '--config' || word.startsWith('--config=')).length > 1)
    throw new UsageFault('--config is given twice: name one settings file')
}

/**
 * Parses the arguments that all daemons share: none, `--config FILE`, `--config=FILE`, `--help` and
 * `--version` with their letters `-h` and `-V`. Help and version may stand anywhere in `own`, the
 * first words of `args`, which are those of the program itself. Throws UsageFault for a `--config`
 * without a file or with further arguments, and for any other option with two dashes.
 * `settingsFile` is the default; a program without one has only its own arguments.
 */
export function parseDaemonWords(
  program: string,
  usage: string,
  settingsFile: string | undefined,
  args: readonly string[],
  own: readonly string[] = wordsBefore('--', args),
): DaemonWords {
  const about = aboutOption(own)
  if (about === 'help') return { kind: 'about', text: `${usage}\nCommon options:\n${commonHelp(settingsFile)}` }
  if (about === 'version') return { kind: 'about', text: `${program} (auth-relay) ${manifest.version}\n` }
  const [first, second] = args
  if (first === undefined) return settingsFile === undefined ? { kind: 'own' } : { kind: 'serve', config: settingsFile }
  const isSpaced = first === '--config'
  if (settingsFile !== undefined && (isSpaced || first.startsWith('--config='))) {
    refuseSecondConfig(own)
    const file = isSpaced ? second : first.slice('--config='.length)
    if (file === undefined || file === '') throw new UsageFault(missingSettingsFile(program))
    const extra = args[isSpaced ? 2 : 1]
    if (extra?.startsWith('-')) throw new UsageFault(unknownOption(program, extra))
    if (extra !== undefined) throw new UsageFault(`${extra}: nothing may follow --config FILE: see ${program} --help`)
    return { kind: 'serve', config: resolve(file) }
  }
  if (first.startsWith('--')) throw new UsageFault(unknownOption(program, first))
  return { kind: 'own' }
}
