/** The verb `check`, and its output. */
import { existsSync } from 'node:fs'
import { resolve } from 'node:path'
import { systemClock } from '../../base/clock.ts'
import { loadSettingsFile, type ShownSetting } from '../../settings/settings.ts'
import { checkContainer } from '../check/check-container.ts'
import { checkFiles } from '../check/check-files.ts'
import { checkNames } from '../check/check-gate.ts'
import { checkHost } from '../check/check-host.ts'
import { checkMaildir, inspectMaildir, maildirsBelow, maildirsOfSettings } from '../check/check-maildirs.ts'
import { checkSettings } from '../check/check-settings.ts'
import type { Finding } from '../check/finding.ts'
import { describeOrigin, hideSecret } from '../text/settings-text.ts'
import { count, printable, type Style, styleFor } from '../text/terminal.ts'
import type { Surroundings, Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

/** `auth-relay check`: checks the file and the host, and shows the settings that are set. */
export const check: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('check'))
    .description('check the settings and this host, and show the settings that are set, with their origin')
    .option('--quiet', 'print only unsafe settings and advice')
    .option('--settings', 'show also the settings that have their default')
    .option('--json', 'print one JSON object; with --maildirs one for each maildrop')
    .option(
      '--maildirs [path...]',
      'only the maildrops at and below these paths: names that make clients download again, unreadable files, files with a time in the future, symbolic links, messages of the same name; without a path the maildrops of popup.passwd_file, or of the accounts of this host',
    )
    .addHelpText(
      'after',
      `
Examples:
  auth-relay check
  auth-relay check --quiet && systemctl restart auth-relay
  auth-relay check --settings
  auth-relay check --maildirs /home /var/mail/vhosts

Exit status 0 only if nothing is unsafe, 1 if something is, 100 if the file cannot be read.
With --maildirs: 0 if nothing was found, 1 if something was, 100 if a path holds no maildrop.`,
    )
    .action((options: Options) => {
      choose({
        kind: 'command',
        run: async () => {
          const config = resolve(options.config)
          if (options.maildirs !== undefined) {
            return checkMaildirs(config, options.maildirs, options, { environment, print, isTerminal })
          }
          const loaded = loadSettingsFile(config, environment)
          const { settings, shown } = loaded
          const findings = [
            ...checkSettings(settings),
            ...checkNames(shown),
            ...checkFiles(loaded, config, new Date()),
            ...checkContainer(settings),
            ...(await checkHost(settings)),
          ]
          const safe = findings.every(({ verdict }) => verdict !== 'unsafe')
          if (options.json === true) print(`${JSON.stringify({ safe, settings: shown.map(hideSecret), findings })}\n`)
          else {
            const style = styleFor(isTerminal, environment)
            if (options.settings === true) print(formatShown(shown, style))
            else if (options.quiet !== true) print(formatSet(shown, style))
            print(formatFindings(findings, options.quiet === true, style))
          }
          return safe ? 0 : 1
        },
      })
    })
}

type Options = { config: string; json?: true; quiet?: true; settings?: true; maildirs?: true | readonly string[] }

/**
 * Each maildrop is printed as soon as it is checked, so that memory does not grow with their
 * number.
 */
function checkMaildirs(
  config: string,
  wanted: true | readonly string[],
  { json, quiet }: Options,
  { environment, print, isTerminal }: Pick<Surroundings, 'environment' | 'print' | 'isTerminal'>,
): number {
  const style = styleFor(isTerminal, environment)
  // Before a migration from another program there may be no settings file yet.
  const settings = wanted === true || existsSync(config) ? loadSettingsFile(config, environment).settings : undefined
  const maildirs =
    wanted === true && settings !== undefined
      ? maildirsOfSettings(settings)
      : maildirsBelow(wanted === true ? [] : wanted)
  const compat = settings?.popup.compat ?? 'none'
  let looked = 0
  let withFindings = 0
  for (const maildir of maildirs) {
    const report = inspectMaildir(maildir, Math.floor(systemClock() / 1000))
    const findings = checkMaildir(report, compat)
    looked += 1
    if (findings.length > 0) withFindings += 1
    if (json === true) print(`${JSON.stringify({ ...report, fine: findings.length === 0 })}\n`)
    else print(findings.map(finding => formatFinding(finding, style)).join(''))
  }
  if (json !== true && !(quiet === true && withFindings === 0)) {
    print(`${count(looked, 'maildrop')}, ${withFindings} with findings.\n`)
  }
  return withFindings === 0 ? 0 : 1
}

/** As formatShown, without the settings that have their default. */
export function formatSet(shown: readonly ShownSetting[], style: Pick<Style, 'faint' | 'strong'>): string {
  const set = shown.filter(({ origin }) => origin.kind !== 'default')
  const rest = set.length === 0 ? 'Every setting' : 'Every other setting'
  const list = set.length === 0 ? '' : `${formatShown(set, style).trimEnd()}\n`
  return `${list}${style.faint(`${rest} has its default: auth-relay check --settings`)}\n\n`
}

/** These settings as lines for the file, with the origin of their values. */
export function formatShown(shown: readonly ShownSetting[], style: Pick<Style, 'faint' | 'strong'>): string {
  const sections = Map.groupBy(shown.map(hideSecret), ({ section }) => section)
  let text = ''
  for (const [section, settings] of sections) {
    text += `${style.strong(section === '' ? 'For every program' : `[${section}]`)}\n`
    for (const { name, written, origin } of settings) {
      text += `  ${name} = ${printable(JSON.stringify(written))}  ${style.faint(`(${describeOrigin(origin)})`)}\n`
    }
  }
  return `${text}\n`
}

function formatFinding({ verdict, about, text, remedy }: Finding, style: Style): string {
  const marks = { fine: style.good('fine  '), advice: style.warning('advice'), unsafe: style.bad('unsafe') }
  const first = `${marks[verdict]}  ${printable(about)}: ${printable(text)}\n`
  return remedy === undefined ? first : `${first}        ${style.faint(`do: ${remedy}`)}\n`
}

const ORDER = ['fine', 'advice', 'unsafe'] as const

/**
 * Findings with their remedies. The worst comes last, because the end of the output stays on the
 * screen.
 */
export function formatFindings(findings: readonly Finding[], quiet: boolean, style: Style): string {
  let text = ''
  for (const verdict of ORDER) {
    if (quiet && verdict === 'fine') continue
    for (const finding of findings.filter(each => each.verdict === verdict)) {
      text += formatFinding(finding, style)
    }
  }
  const count = findings.filter(({ verdict }) => verdict === 'unsafe').length
  return `${text}${count === 0 ? style.good('Safe.') : style.bad(`Not safe: ${count} to correct.`)}\n`
}
