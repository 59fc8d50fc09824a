import { resolve } from 'node:path'
import { EXIT } from '../../base/exit-status.ts'
import { loadSettingsFile } from '../../settings/settings.ts'
import { type SiteStatus, siteStatus } from '../status/site-status.ts'
import { formatMoment } from '../text/moment.ts'
import { printable } from '../text/printable.ts'
import { type Style, styleFor } from '../text/style.ts'
import type { Verb } from '../verb.ts'
import { withConfigOption } from '../verb.ts'

/** `auth-relay status`: how everything stands, on one screen. */
export const status: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('status'))
    .description('one screen: programs, database, log sources, grants, the last hour, certificates, and what is wrong')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay status
  auth-relay status --json | jq -r '.problems[]'

Numbers of grants and logins need the password of status_dbuser.
Exit status 0 if nothing is wrong,
1 if something is, 111 if the database is away.`,
    )
    .action((options: { config: string; json?: true }) => {
      choose({
        type: 'command',
        run: async () => {
          const config = resolve(options.config)
          const { settings } = loadSettingsFile(config, environment)
          const found = await siteStatus(settings, config, process.argv[1] ?? '', new Date())
          print(
            options.json === true
              ? `${JSON.stringify(found)}\n`
              : formatStatus(found, styleFor(isTerminal, environment)),
          )
          return exitStatusOf(found)
        },
      })
    })
}

/** For monitoring: 0 healthy, 1 something is wrong, 111 the database is away. */
export const exitStatusOf = ({ database, problems }: SiteStatus): number =>
  database.state === 'down' ? EXIT.temporary : problems.length > 0 ? 1 : 0

/** The screen. */
export function formatStatus(found: SiteStatus, style: Style): string {
  const { programs, database, sources, certificates, problems } = found
  const lines = [
    ...section('Programs', programs, ({ name, pid, since, startedBy }) => [
      name,
      `since ${formatMoment(since)}, pid ${pid}, ${startedBy}`,
    ]),
    ['Database', ''],
    ...databaseLines(database),
    ...section('Log sources', sources, ({ source, last, line, fault }) => [
      source,
      fault ??
        (last === undefined
          ? 'no line yet'
          : `last line ${formatMoment(last)}${line === undefined ? '' : `: ${shorten(line)}`}`),
    ]),
    ...section('Certificates', certificates, ({ address, found: shown }) => [
      address,
      'fault' in shown ? shown.fault : `${shown.names}, until ${formatMoment(shown.until)}`,
    ]),
  ] as const
  const width = Math.max(...lines.map(([left]) => left.length))
  const body = lines.map(([left, right]) =>
    right === '' ? `${style.strong(left)}\n` : `  ${printable(left).padEnd(width)}  ${printable(right)}\n`,
  )
  const end =
    problems.length === 0
      ? `${style.good('Nothing is wrong.')}\n`
      : problems.map(problem => `${style.bad('wrong')}  ${printable(problem)}\n`).join('')
  return `${body.join('')}\n${end}`
}

/** A line of a log, cut to fit the screen. */
const shorten = (line: string): string => (line.length <= MAX_LINE ? line : `${line.slice(0, MAX_LINE - 1)}…`)
const MAX_LINE = 90

type Line = readonly [left: string, right: string]

const section = <Row>(title: string, rows: readonly Row[], format: (row: Row) => Line): readonly Line[] =>
  rows.length === 0
    ? [
        [title, ''],
        ['none', '-'],
      ]
    : [[title, ''], ...rows.map(format)]

function databaseLines(database: SiteStatus['database']): readonly Line[] {
  if (database.state === 'down') return [['unavailable', database.reason]]
  const { host, role, schema, counts } = database
  const about: Line = ['server', `${host}, role ${role}, schema ${schema}`]
  if (counts === undefined) return [about, ['grants', 'unknown: this host has no password of database.status_dbuser']]
  const { totals, lastHour, lastHeard } = counts
  return [
    about,
    ['grants', `${totals.grants}, allowances ${totals.allowances}, blocks ${totals.blocks}`],
    ['logins, last hour', `${lastHour.granted} granted, ${lastHour.refused} refused`],
    ['clients, last hour', `${lastHour.relayed} relayed, ${lastHour.closed} not relayed`],
    ...lastHeard.map(({ daemon, at }): Line => [`last of ${daemon}`, formatMoment(at)]),
  ]
}
