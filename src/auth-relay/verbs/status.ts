/** `auth-relay status`: the state of the site, and its problems. */

import { existsSync, readFileSync, type Stats, statSync } from 'node:fs'
import { join, resolve } from 'node:path'
import { EXIT, messageOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import { schemaVersion } from '../../database/migrate.ts'
import { createStatusFeed, type EventCounts, type LastByDaemon, type Totals } from '../../grants/status-feed.ts'
import { formatSocketAddress } from '../../process/socket-address.ts'
import { passwordFileOf } from '../../settings/database-connection.ts'
import { setupCommand } from '../../settings/database-remedy.ts'
import { loadSettingsFile, type Settings } from '../../settings/settings.ts'
import { LAST_LINES_FILE, lastLineKey, parseLastLines } from '../../wire/last-lines.ts'
import { type ShownCertificate, shownCertificates } from '../certificates.ts'
import { checkRights } from '../check/check-rights.ts'
import type { Finding } from '../check/finding.ts'
import { type RunningProgram, runningPrograms } from '../check/processes.ts'
import { DATABASE_ROLES, knownSchema, withAnyRole } from '../site-database.ts'
import { partsInUseHere, servesPop3 } from '../stack/plan.ts'
import { formatMoment } from '../text/moment.ts'
import { columnsOf, count, pad, printable, type Style, styleFor } from '../text/terminal.ts'
import { type Verb, withConfigOption } from '../verb.ts'

const HOUR_S = 3600
/** Certificates that end within this number of days are named as a problem. */
const SOON_DAYS = 7
const DAY_MS = 86_400_000
/** Daemons of hosts that one screen shows. */
const MAX_DAEMONS = 100
/** Seconds by which the clocks of host and database may differ. */
const MAX_DRIFT_S = 60

/**
 * The state of the database. `counts` is present only if the role of the status page is admitted;
 * otherwise `uncounted` is the reason.
 */
export type DatabaseStatus =
  | { readonly state: 'down'; readonly reason: string }
  | {
      readonly state: 'up'
      readonly host: string
      readonly role: string
      readonly schema: number
      readonly uncounted?: string
      readonly counts?: {
        readonly totals: Totals
        readonly lastHour: Omit<EventCounts, 'start'>
        /** Within the last hour. */
        readonly lastByDaemon: readonly LastByDaemon[]
      }
    }

/**
 * A login source of authd. `last` and `line`: the time at which authd read the newest line, and its
 * text, if they are known. `changed`: the last change of a file of which authd has read no line.
 */
export type LogSource = {
  readonly source: string
  readonly last?: Date
  readonly line?: string
  readonly changed?: Date
  readonly fault?: string
}

export type SiteStatus = {
  readonly taken: Date
  readonly programs: readonly RunningProgram[]
  readonly database: DatabaseStatus
  readonly sources: readonly LogSource[]
  readonly certificates: readonly ShownCertificate[]
  readonly problems: readonly string[]
}

/**
 * The current state of the site of a settings file. `script` is a program of the same installation
 * as the daemons.
 */
export async function siteStatus(settings: Settings, config: string, script: string, now: Date): Promise<SiteStatus> {
  const parts = partsInUseHere(settings)
  const [database, certificates] = await Promise.all([askDatabase(settings), shownCertificates(settings, parts)])
  const programs = runningPrograms(config, script)
  const sources = sourcesOf(settings)
  const wanted = [
    ...(parts.authd ? ['authd'] : []),
    ...(parts.popup ? ['popup'] : []),
    ...(parts.sslwrap ? ['sslwrap'] : []),
    ...(parts.gate ? ['wrap'] : []),
    ...(parts.statusPage ? ['status-page'] : []),
    ...(parts.alerts ? ['alerts'] : []),
  ]
  const missing = wanted.filter(name => programs.every(program => program.name !== name))
  const problems = [
    ...missing.map(name => `${name} does not run`),
    ...(await problemsOfDatabase(database, settings, now)),
    ...checkRights(settings, { script }).flatMap(problemOfFinding),
    ...sources.flatMap(({ source, fault }) => (fault === undefined ? [] : [`${source}: ${fault}`])),
    ...certificates.flatMap(certificate => problemsOfCertificate(certificate, now)),
  ]
  return { taken: now, programs, database, sources, certificates, problems }
}

/** A program that may not read its log source, or may not make its socket, grants nothing. */
const problemOfFinding = ({ verdict, about, text, remedy }: Finding): readonly string[] =>
  verdict === 'unsafe' ? [`${about}: ${text}: ${remedy}`] : []

async function askDatabase(settings: Settings): Promise<DatabaseStatus> {
  try {
    const { result, refused } = await withAnyRole(settings, DATABASE_ROLES, async (database, role, user) => {
      const schema = await schemaVersion(database)
      const state = database.state()
      const about = { state: 'up', host: state.state === 'up' ? state.host : '', role: user, schema } as const
      if (role !== 'status') return about
      const feed = createStatusFeed(database)
      const totals = await feed.totals()
      const [from, to] = [totals.now.getTime() - HOUR_S * 1000, totals.now.getTime() + 1000]
      const steps = await feed.countEvents(new Date(from), new Date(to), HOUR_S)
      const lastByDaemon = await feed.lastByDaemon(HOUR_S, MAX_DAEMONS)
      return { ...about, counts: { totals, lastHour: sum(steps), lastByDaemon } }
    })
    const reason = refused.get('status')
    if (reason === undefined) return result
    return { ...result, uncounted: hasStatusPassword(settings) ? reason : NO_STATUS_PASSWORD }
  } catch (error) {
    if (!(error instanceof UsageFault || error instanceof TemporaryFault)) throw error
    return { state: 'down', reason: error.message }
  }
}

const NO_STATUS_PASSWORD = 'this host has no password of database.status_dbuser'

function hasStatusPassword(settings: Settings): boolean {
  const file = passwordFileOf(settings, 'status')
  return file === '' ? settings.database.status_dbpass !== '' : existsSync(file)
}

const sum = (steps: readonly EventCounts[]): Omit<EventCounts, 'start'> => {
  const total = (read: (counts: EventCounts) => number): number => steps.reduce((all, step) => all + read(step), 0)
  return {
    granted: total(({ granted }) => granted),
    refused: total(({ refused }) => refused),
    relayed: total(({ relayed }) => relayed),
    closed: total(({ closed }) => closed),
  }
}

async function problemsOfDatabase(
  database: DatabaseStatus,
  { database: { dbhost, dbport } }: Pick<Settings, 'database'>,
  now: Date,
): Promise<readonly string[]> {
  if (database.state === 'down') return [`database: ${database.reason}`]
  const known = await knownSchema()
  const hosts = dbhost.split(',').map(host => ({ host: host.trim(), port: dbport }))
  const remedy =
    database.schema < known ? `run ${setupCommand(hosts, 'auth-relay migrate')}` : 'install a newer auth-relay'
  const drift = database.counts === undefined ? 0 : (database.counts.totals.now.getTime() - now.getTime()) / 1000
  return [
    ...(database.schema === known
      ? []
      : [`database: schema ${database.schema}, this program knows ${known}: ${remedy}`]),
    ...(Math.abs(drift) > MAX_DRIFT_S ? [`clock: ${Math.round(drift)} s from the database: run an NTP client`] : []),
  ]
}

/** The login sources of the settings, with the newest lines that authd has left in its file. */
export function sourcesOf({ authd, popup, top }: Pick<Settings, 'authd' | 'popup' | 'top'>): readonly LogSource[] {
  const lines = lastLinesOf(join(top.state_dir, LAST_LINES_FILE))
  const source = (name: string, key: string): LogSource => {
    const found = lines.get(key)
    return found === undefined ? { source: name } : { source: name, last: new Date(found.at), line: found.text }
  }
  return [
    ...authd.follow_files.map((path): LogSource => {
      let status: Stats | undefined
      try {
        status = statSync(path, { throwIfNoEntry: false })
      } catch (error) {
        // A directory above it is closed to this account.
        return { source: path, fault: messageOf(error) }
      }
      if (status === undefined) return { source: path, fault: 'there is no such file' }
      const found = source(path, lastLineKey('file', path))
      return found.last === undefined ? { ...found, changed: status.mtime } : found
    }),
    ...authd.syslog_listen.map(address => source(`syslog to ${formatSocketAddress(address)}`, lastLineKey('tcp'))),
    ...(authd.syslog_fifo === '' ? [] : [source(`FIFO ${authd.syslog_fifo}`, lastLineKey('fifo'))]),
    ...(authd.journal ? [source('journal', lastLineKey('journal'))] : []),
    ...(servesPop3(popup) && authd.socket !== '' ? [source('login socket', lastLineKey('socket'))] : []),
  ]
}

/** Empty if authd has not run here, or if the file is not for this account. */
function lastLinesOf(path: string): ReturnType<typeof parseLastLines> {
  try {
    return parseLastLines(readFileSync(path, 'utf8'))
  } catch {
    return new Map()
  }
}

function problemsOfCertificate({ address, found }: ShownCertificate, now: Date): readonly string[] {
  if ('fault' in found) return [`certificate at ${address}: ${found.fault}`]
  const days = Math.floor((found.until.getTime() - now.getTime()) / DAY_MS)
  return days < 0
    ? [`certificate at ${address} has ended`]
    : days < SOON_DAYS
      ? [`certificate at ${address} ends in ${count(days, 'day')}`]
      : []
}

/** `auth-relay status`: shows the state of the site on one screen. */
export const status: Verb = (program, { environment, print, isTerminal }, choose) => {
  withConfigOption(program.command('status'))
    .description('show programs, database, log sources, grants, the last hour, certificates and problems')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay status
  auth-relay status --json | jq -r '.problems[]'

Numbers of grants and logins need the password of status_dbuser.
Exit status 0 if nothing is wrong, 1 if something is, 111 if the database is unreachable.`,
    )
    .action((options: { config: string; json?: true }) => {
      choose({
        kind: 'command',
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

/** The exit status for monitoring: 0 healthy, 1 a problem, 111 database unavailable. */
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
    ...section('Log sources', sources, ({ source, last, line, changed, fault }) => [
      source,
      fault ??
        (last === undefined
          ? `no line yet${changed === undefined ? '' : `; the file changed ${formatMoment(changed)}`}`
          : `last line ${formatMoment(last)}${line === undefined ? '' : `: ${shorten(line)}`}`),
    ]),
    ...section('Certificates', certificates, ({ address, found: shown }) => [
      address,
      'fault' in shown ? shown.fault : `${shown.names}, until ${formatMoment(shown.until)}`,
    ]),
  ] as const
  const width = Math.max(...lines.map(([left]) => columnsOf(printable(left))))
  const body = lines.map(([left, right]) =>
    right === '' ? `${style.strong(left)}\n` : `  ${pad(printable(left), width)}  ${printable(right)}\n`,
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
  const { host, role, schema, counts, uncounted = NO_STATUS_PASSWORD } = database
  const about: Line = ['server', `${host}, role ${role}, schema ${schema}`]
  if (counts === undefined) return [about, ['grants', `unknown: ${uncounted}`]]
  const { totals, lastHour, lastByDaemon } = counts
  return [
    about,
    ['grants', `${totals.grants}, allowances ${totals.allowances}, blocks ${totals.blocks}`],
    ['logins, last hour', `${lastHour.granted} granted, ${lastHour.refused} refused`],
    ['clients, last hour', `${lastHour.relayed} relayed, ${lastHour.closed} not relayed`],
    ...lastByDaemon.map(
      ({ daemon, host, at }): Line => [`last of ${daemon}${host === null ? '' : ` on ${host}`}`, formatMoment(at)],
    ),
  ]
}
