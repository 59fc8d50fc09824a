import { UsageFault } from '../../daemon/exit-status.ts'
import { nearest } from '../../daemon/settings/nearest.ts'
import type { Dialect } from '../../syslog/dialect.ts'
import { DIALECTS, dialectNamed } from '../../syslog/dialects.ts'
import { LoginRecognizer, type Verdict } from '../../syslog/login-recognizer.ts'
import { NumberedLines } from '../numbered-lines.ts'
import { printable } from '../printable.ts'
import type { Verb } from '../verb.ts'

type Options = { dialect: string; imap?: true; ownFiles?: true; json?: true }

/** `auth-relay test-line`: what authd would make of the lines of a log. Grants nothing, needs no settings and no database. */
export const testLine: Verb = (program, { print }, choose) => {
  program
    .command('test-line')
    .description('say for each line of a log on standard input whether it would grant, to whom, or why not')
    .option('--dialect <names>', 'daemons whose lines are believed, separated by commas, or all', 'all')
    .option('--imap', 'IMAP logins count as well (check_imap)')
    .option('--own-files', 'also lines that a daemon writes to a log file of its own')
    .option('--json', 'one JSON object a line')
    .addHelpText(
      'after',
      `
Dialects:
${dialectLines()}

Examples:
  auth-relay test-line < /var/log/mail.log
  auth-relay test-line --dialect ipop3d,vchkpw --json < /var/log/mail.log

Exit status 1 if no line would grant.`,
    )
    .action((options: Options) => {
      const dialects = readDialects(options.dialect)
      choose({ type: 'command', run: () => judge(dialects, options, print) })
    })
}

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

async function judge(dialects: readonly Dialect[], options: Options, print: (text: string) => void): Promise<number> {
  const { imap = false, ownFiles = false, json = false } = options
  const recognizer = new LoginRecognizer({ dialects, imap, ownFiles })
  let grants = 0
  let lines = 0
  const format = json ? formatJson : formatText
  for await (const { n, text } of new NumberedLines(process.stdin)) {
    const verdict: Verdict =
      text === undefined ? { verdict: 'ignore', reason: 'line is too long' } : recognizer.recognize(text, Date.now())
    lines += 1
    if (verdict.verdict === 'grant') grants += 1
    print(format(n, verdict))
  }
  if (!json) print(`${lines} lines: ${grants} would grant, ${lines - grants} ignored\n`)
  return grants > 0 ? 0 : 1
}

/** One line of `--json`, as docs/ARCHITECTURE.md promises it to scripts. */
export const formatJson = (n: number, verdict: Verdict): string =>
  `${JSON.stringify(
    verdict.verdict === 'grant'
      ? { n, verdict: 'grant', dialect: verdict.dialect, ip: verdict.ip, login: verdict.login }
      : { n, verdict: 'ignore', reason: verdict.reason },
  )}\n`

/** One line for people. */
export function formatText(n: number, verdict: Verdict): string {
  const number = String(n).padStart(5)
  return verdict.verdict === 'grant'
    ? `${number}  grant   ${verdict.ip}  ${printable(verdict.login)}  (${verdict.dialect})\n`
    : `${number}  ignore  ${printable(verdict.reason)}\n`
}

/** @throws UsageFault for a name that is none, with the nearest one. */
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
