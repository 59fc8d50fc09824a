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

/**
 * Parses the arguments that all daemons share: none, `--config FILE`, `--config=FILE`, `--help` and
 * `--version` with their letters `-h` and `-V`. Throws UsageFault for a `--config` without a file
 * or with further arguments, and for any other option with two dashes. `settingsFile` is the
 * default; a program without one has only its own arguments.
 */
export function parseDaemonWords(
  program: string,
  usage: string,
  settingsFile: string | undefined,
  args: readonly string[],
): DaemonWords {
  const [first, second] = args
  const help = `see ${program} --help`
  if (first === '--help' || first === '-h')
    return { kind: 'about', text: `${usage}\nCommon options:\n${commonHelp(settingsFile)}` }
  if (first === '--version' || first === '-V')
    return { kind: 'about', text: `${program} (auth-relay) ${manifest.version}\n` }
  if (first === undefined) return settingsFile === undefined ? { kind: 'own' } : { kind: 'serve', config: settingsFile }
  const isSpaced = first === '--config'
  if (settingsFile !== undefined && (isSpaced || first.startsWith('--config='))) {
    const file = isSpaced ? second : first.slice('--config='.length)
    if (file === undefined || file === '')
      throw new UsageFault(`--config: the settings file is missing: write --config FILE, or ${help}`)
    const extra = args[isSpaced ? 2 : 1]
    if (extra !== undefined) throw new UsageFault(`${extra}: nothing may follow --config FILE: ${help}`)
    return { kind: 'serve', config: resolve(file) }
  }
  if (first.startsWith('--')) throw new UsageFault(`unknown option ${first}: ${help}`)
  return { kind: 'own' }
}
