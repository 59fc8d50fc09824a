/** The verb `test-line`, and its answer for each line of a log. */
import { resolve } from 'node:path'
import { nearest, UsageFault } from '../../../base/errors.ts'
import { isReadable } from '../../../base/files.ts'
import { type GrantPolicy, policyOf } from '../../../grants/grant-policy.ts'
import { loadSettingsFile, parseSettings, SETTINGS_FILE, type Settings } from '../../../settings/settings.ts'
import { ContainerLines, isOfContainer } from '../../../syslog/container-lines.ts'
import type { Dialect } from '../../../syslog/dialect.ts'
import { DIALECTS, dialectNamed } from '../../../syslog/dialects.ts'
import { LoginRecognizer, recognizerOptions, type Verdict } from '../../../syslog/login-recognizer.ts'
import { count, printable } from '../../text/terminal.ts'
import type { Surroundings, Verb } from '../../verb.ts'
import { withConfigOption } from '../../verb.ts'
import { NumberedLines } from './numbered-lines.ts'

/**
 * `auth-relay test-line`: shows the result of authd for the lines of a log. It grants nothing and
 * needs no database.
 */
export const testLine: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('test-line'))
    .description('show for each line of a log on standard input whether it would grant its address, and why not')
    .option('--dialect <names>', 'daemons whose lines count, separated by commas; without it all')
    .option('--imap', 'IMAP logins count as well (check_imap)')
    .option('--any-age', 'read old lines as if they were new')
    .option('--own-files', 'older option without effect: log files of a daemon are always read')
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      `
Dialects:
${dialectLines()}

Examples:
  auth-relay test-line < /var/log/mail.log
  auth-relay test-line --dialect ipop3d,vchkpw --json < /var/log/mail.log

Each line has one of three verdicts. grant: a login that grants its address. drop: a login
that grants nothing, because of its age, its name or its address. ignore: no login.
The settings file decides which lines count; without a file the defaults do. test-line does
not read the blocks in the database.

Exit status 1 if no line would grant.`,
    )
    .action((options: Options) => {
      const named = options.dialect === undefined ? undefined : readDialects(options.dialect)
      choose({ kind: 'command', run: () => testLines(named, options, surroundings) })
    })
}

type Options = { config: string; dialect?: string; imap?: true; ownFiles?: true; anyAge?: true; json?: true }

/** The names of the dialects, in lines that fit a terminal. */
function dialectLines(): string {
  const lines = ['']
  for (const { name } of DIALECTS) {
    const last = lines.at(-1) ?? ''
    if (last.length + name.length > 70) lines.push(name)
    else lines[lines.length - 1] = last === '' ? name : `${last}, ${name}`
  }
  return lines.map(line => `  ${line}`).join(',\n')
}

async function testLines(
  named: readonly Dialect[] | undefined,
  options: Options,
  { environment, print }: Surroundings,
): Promise<number> {
  const { json = false } = options
  const lineTest = new LineTest(settingsFor(options.config, environment), {
    named,
    imap: options.imap === true,
    anyAge: options.anyAge === true,
  })
  const counts = { grant: 0, drop: 0, ignore: 0 }
  const format = json ? formatJson : formatText
  for await (const { n, text } of new NumberedLines(process.stdin)) {
    const result = lineTest.run(text, Date.now())
    counts[outcomeOf(result)] += 1
    print(format(n, result))
  }
  if (!json) {
    const lines = counts.grant + counts.drop + counts.ignore
    print(`${count(lines, 'line')}: ${counts.grant} would grant, ${counts.drop} dropped, ${counts.ignore} ignored\n`)
  }
  return counts.grant > 0 ? 0 : 1
}

/** The settings of the site. Without the usual file, or the right to read it, the defaults. */
function settingsFor(config: string, environment: Surroundings['environment']): Settings {
  if (config === SETTINGS_FILE && !isReadable(config)) return parseSettings('', SETTINGS_FILE, {}).settings
  return loadSettingsFile(resolve(config), environment).settings
}

/**
 * A result, and the settings that the site needs for it. `refusal`: the reason why the address is
 * never granted.
 */
export type LineResult = { readonly verdict: Verdict; readonly needs: readonly string[]; readonly refusal?: string }

const outcomeOf = ({ verdict: { verdict }, refusal }: LineResult): Verdict['verdict'] =>
  refusal === undefined ? verdict : 'drop'

export type LineTestOptions = {
  /** Dialects to use in place of all. */
  readonly named?: readonly Dialect[] | undefined
  readonly imap?: boolean
  readonly anyAge?: boolean
}

/**
 * Checks lines as authd does with these settings. Dialects and forms that are switched off count
 * too, and their settings are named.
 */
export class LineTest {
  readonly #recognizer: LoginRecognizer
  readonly #believed: ReadonlySet<string>
  readonly #policy: GrantPolicy
  readonly #containers = new ContainerLines('first')

  /** @throws UsageFault for unknown dialects in the settings. */
  constructor(settings: Settings, { named, imap = false, anyAge = false }: LineTestOptions = {}) {
    const { options, faults } = recognizerOptions(settings)
    if (faults.length > 0) throw new UsageFault(faults)
    this.#believed = new Set(options.dialects.map(({ name }) => name))
    this.#policy = policyOf(settings)
    this.#recognizer = new LoginRecognizer({
      ...options,
      dialects: named ?? DIALECTS,
      imap: imap || options.imap === true,
      maxAge: anyAge ? Number.POSITIVE_INFINITY : options.maxAge,
      ownFiles: true,
    })
  }

  /** `text` undefined: a line longer than authd reads. */
  run(text: string | undefined, now: number): LineResult {
    if (text === undefined) {
      this.#containers.lose()
      return { verdict: { verdict: 'ignore', reason: 'line is too long' }, needs: [] }
    }
    const verdict = this.#recognizer.recognizeFileLine(text, this.#containers, now)
    if (verdict.verdict !== 'grant') return { verdict, needs: [] }
    const refusal = this.#policy.neverList.describe(verdict.ip)
    if (refusal !== undefined) return { verdict, needs: [], refusal: `the address is never granted: ${refusal}` }
    const setting = DIALECTS.find(({ name }) => name === verdict.dialect)?.setting
    const needs = [
      ...(this.#believed.has(verdict.dialect) || setting === undefined ? [] : [`${setting} = true`]),
      ...(verdict.form === 'file' || isOfContainer(text) ? ['follow_files'] : []),
    ]
    return { verdict, needs }
  }
}

/** One line of `--json`, as docs/ARCHITECTURE.md promises it to scripts. */
export function formatJson(n: number, result: LineResult): string {
  const { verdict, needs } = result
  if (verdict.verdict === 'ignore') {
    const { reason, near } = verdict
    return `${JSON.stringify({ n, verdict: 'ignore', reason, near })}\n`
  }
  const { dialect, ip, login } = verdict
  const found = { n, verdict: outcomeOf(result), dialect, ip, login }
  const reason = reasonOf(result)
  const more = reason !== undefined ? { reason } : needs.length > 0 ? { needs } : {}
  return `${JSON.stringify({ ...found, ...more })}\n`
}

/** One line for people. */
export function formatText(n: number, result: LineResult): string {
  const { verdict, needs } = result
  const number = String(n).padStart(5)
  if (verdict.verdict === 'ignore') {
    const near = verdict.near === undefined ? '' : `, at "${printable(verdict.near)}"`
    return `${number}  ignore  ${printable(verdict.reason)}${near}\n`
  }
  const { ip, login, dialect } = verdict
  const found = `${outcomeOf(result).padEnd(6)}  ${ip}  ${printable(login)}  (${dialect})`
  const reason = reasonOf(result)
  const more = reason !== undefined ? `: ${reason}` : needs.length > 0 ? `, with ${needs.join(' and ')}` : ''
  return `${number}  ${found}${more}\n`
}

const reasonOf = ({ verdict, refusal }: LineResult): string | undefined =>
  verdict.verdict === 'drop' ? verdict.reason : refusal

/** @throws UsageFault for an unknown name, with the nearest one. */
export function readDialects(names: string): readonly Dialect[] {
  if (names === 'all') return DIALECTS
  return names.split(',').map(name => {
    const dialect = dialectNamed(name.trim())
    if (dialect !== undefined) return dialect
    const known = DIALECTS.map(each => each.name)
    const near = nearest(name, known)
    throw new UsageFault(
      `there is no dialect ${name}${near === undefined ? '' : `; did you mean ${near}?`}: known are ${known.join(', ')}, all`,
    )
  })
}
