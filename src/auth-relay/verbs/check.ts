import { resolve } from 'node:path'
import { loadSettingsFile, type ShownSetting } from '../../daemon/settings/settings.ts'
import type { Finding } from '../check/finding.ts'
import { judgeFiles } from '../check/judge-files.ts'
import { judgeHost } from '../check/judge-host.ts'
import { judgeNames } from '../check/judge-names.ts'
import { judgeSettings } from '../check/judge-settings.ts'
import { printable } from '../printable.ts'
import { withConfigOption } from '../settings-option.ts'
import { type Style, styleFor } from '../style.ts'
import type { Verb } from '../verb.ts'

type Options = { config: string; json?: true; quiet?: true }

/** `auth-relay check`: shows every setting with its origin, and judges the file and the host. */
export const check: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('check'))
    .description('show every setting and where it comes from, and judge the file and this host')
    .option('--quiet', 'only what is unsafe or could be better')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay check
  auth-relay check --quiet && systemctl restart auth-relay

Exit status 0 only if nothing is unsafe, 1 if something is, 100 if the file cannot be read.`,
    )
    .action((options: Options) => {
      choose({
        type: 'command',
        run: async () => {
          const config = resolve(options.config)
          const { settings, shown } = loadSettingsFile(config, environment)
          const findings = [
            ...judgeSettings(settings),
            ...judgeNames(shown),
            ...judgeFiles(settings, config, new Date()),
            ...(await judgeHost(settings)),
          ]
          const safe = findings.every(({ verdict }) => verdict !== 'unsafe')
          if (options.json === true) print(`${JSON.stringify({ safe, settings: shown.map(hideSecret), findings })}\n`)
          else {
            const style = styleFor(isTerminal, environment)
            if (options.quiet !== true) print(formatShown(shown, style))
            print(formatFindings(findings, options.quiet === true, style))
          }
          return safe ? 0 : 1
        },
      })
    })
}

const SECRETS: ReadonlySet<string> = new Set(['dbpass', 'wrap_dbpass', 'status_dbpass'])

function hideSecret(setting: ShownSetting): ShownSetting {
  return SECRETS.has(setting.name) && setting.written !== '' ? { ...setting, written: '[secret]' } : setting
}

/** Every setting as it could stand in the file, with the place that it comes from. */
export function formatShown(shown: readonly ShownSetting[], style: Pick<Style, 'faint' | 'strong'>): string {
  const sections = Map.groupBy(shown.map(hideSecret), ({ section }) => section)
  let text = ''
  for (const [section, settings] of sections) {
    text += `${style.strong(section === '' ? 'For every program' : `[${section}]`)}\n`
    for (const { name, written, origin } of settings) {
      const from =
        origin.type === 'default'
          ? 'default'
          : origin.type === 'file'
            ? `line ${origin.line}`
            : `environment ${origin.variable}`
      text += `  ${name} = ${printable(JSON.stringify(written))}  ${style.faint(`(${from})`)}\n`
    }
  }
  return `${text}\n`
}

const ORDER = ['fine', 'advice', 'unsafe'] as const

/** Findings, the worst last, where the eye is; each with its remedy. */
export function formatFindings(findings: readonly Finding[], quiet: boolean, style: Style): string {
  const marks = { fine: style.good('fine  '), advice: style.warning('advice'), unsafe: style.bad('unsafe') }
  let text = ''
  for (const verdict of ORDER) {
    if (quiet && verdict === 'fine') continue
    for (const finding of findings.filter(each => each.verdict === verdict)) {
      text += `${marks[verdict]}  ${finding.about}: ${printable(finding.text)}\n`
      if (finding.remedy !== undefined) text += `        ${style.faint(`do: ${finding.remedy}`)}\n`
    }
  }
  const count = findings.filter(({ verdict }) => verdict === 'unsafe').length
  return `${text}${count === 0 ? style.good('Safe.') : style.bad(`Not safe: ${count} to mend.`)}\n`
}
