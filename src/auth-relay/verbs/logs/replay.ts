import { accessSync, constants, createReadStream, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { messageOf, UsageFault } from '../../../base/errors.ts'
import { policyOf } from '../../../grants/grant-policy.ts'
import { loadSettingsFile, parseSettings, type Settings } from '../../../settings/settings.ts'
import { ContainerLines } from '../../../syslog/container-lines.ts'
import type { Dialect } from '../../../syslog/dialect.ts'
import { LoginRecognizer, recognizerOptions } from '../../../syslog/login-recognizer.ts'
import { formatMoment } from '../../text/moment.ts'
import { count, formatTable, ProgressBar, printable } from '../../text/terminal.ts'
import { type Surroundings, type Verb, withConfigOption } from '../../verb.ts'
import { NumberedLines } from './numbered-lines.ts'
import { type PastLogin, recordPastLogins } from './past-logins.ts'
import { readDialects } from './test-line.ts'

/**
 * `auth-relay replay`: reads a whole log, shows the grants that it would have caused, and stores
 * the grants that are still in force.
 */
export const replay: Verb = (program, surroundings, choose) => {
  withConfigOption(program.command('replay'))
    .description('read a log from its beginning: count its logins by daemon, and all other lines by tag')
    .argument('<file>', 'log file, or - for standard input')
    .option('--shadow', 'grant nothing and use no database: only print the counts')
    .option('--dialect <names>', 'daemons whose lines count, or all; without it those of the settings')
    .option('--json', 'print one JSON object')
    .addHelpText(
      'after',
      `
Examples:
  auth-relay replay /var/log/mail.log --shadow --dialect all
  auth-relay replay /var/log/mail.log
  zcat /var/log/mail.log.*.gz | auth-relay replay - --shadow --dialect dovecot

Without --shadow, logins whose time is less than exp_time ago are granted until their end.
Exit status 1 if no line is a login.`,
    )
    .action((file: string, options: Options) => {
      const named = options.dialect === undefined ? undefined : readDialects(options.dialect)
      choose({ kind: 'command', run: () => run(file === '-' ? file : resolve(file), named, options, surroundings) })
    })
}

type Options = { config: string; dialect?: string; shadow?: true; json?: true }

async function run(file: string, named: readonly Dialect[] | undefined, options: Options, surroundings: Surroundings) {
  const config = resolve(options.config)
  const settings =
    named !== undefined && options.shadow === true
      ? undefined
      : loadSettingsFile(config, surroundings.environment).settings
  const effective = settings ?? parseSettings('', config, {}).settings
  const found = await readLog(file, recognizerFor(effective, named))
  const policy = policyOf(effective)
  const never = found.young.filter(({ ip }) => policy.neverList.loginRefusal(ip) !== undefined).length

  const outcome =
    options.shadow === true || settings === undefined
      ? undefined
      : await recordPastLogins(settings, 'replay', found.young)
  const { print, columns } = surroundings
  if (options.json === true) {
    const dialectsFound = [...found.dialects].map(([dialect, { logins, addresses, users }]) => ({
      dialect,
      logins,
      addresses: addresses.size,
      users: users.size,
    }))
    const ignored = found.ignored.entries().map(([reason, lines]) => ({ reason, lines }))
    print(
      `${JSON.stringify({ lines: found.lines, dialects: dialectsFound, expired: found.expired, ahead: found.ahead, never, ignored, granted: outcome?.granted ?? null, refused: outcome?.refused ?? null })}\n`,
    )
  } else {
    print(formatReplay(found, columns))
    if (outcome === undefined)
      print(
        `${count(never, 'address', 'addresses')} with a recent login can never be granted.\nNothing was granted (--shadow).\n`,
      )
    else print(`Granted now: ${outcome.granted}. Refused: ${outcome.refused}.\n`)
  }
  return found.logins > 0 ? 0 : 1
}

/**
 * The recognizer for a followed file, the same as authd's.
 * @throws UsageFault if no dialect is switched on.
 */
function recognizerFor(settings: Settings, named: readonly Dialect[] | undefined): LoginRecognizer {
  const { options, faults } = recognizerOptions(settings)
  if (faults.length > 0) throw new UsageFault(faults)
  const dialects = named ?? options.dialects
  if (dialects.length === 0) {
    throw new UsageFault('no check_daemon_* is on in the settings: name the daemons with --dialect, or --dialect all')
  }
  return new LoginRecognizer({ ...options, dialects, ownFiles: true })
}

type Counted = { logins: number; readonly addresses: Set<string>; readonly users: Set<string> }

type Found = {
  lines: number
  logins: number
  /** Logins whose grant would have ended. */
  expired: number
  /** Logins with a stamp in the future. */
  ahead: number
  first: number | undefined
  last: number | undefined
  readonly dialects: Map<string, Counted>
  readonly ignored: Tally
  /** Logins young enough to grant, the newest of each address. */
  readonly young: readonly PastLogin[]
}

/** Distinct addresses and logins that are counted. Beyond this number the counts are "at least". */
const MAX_DISTINCT = 100_000

/** Milliseconds in the future from which on a stamp is attributed to another clock or time zone. */
const MAX_AHEAD_MS = 60_000

async function readLog(file: string, recognizer: LoginRecognizer): Promise<Found> {
  const bar = new ProgressBar(file === '-' ? 0 : sizeOf(file))
  const young = new Map<string, PastLogin>()
  const found = {
    lines: 0,
    logins: 0,
    expired: 0,
    ahead: 0,
    first: undefined,
    last: undefined,
    dialects: new Map<string, Counted>(),
    ignored: new Tally(),
  }
  const times: { first: number | undefined; last: number | undefined } = { first: undefined, last: undefined }
  const now = Date.now()
  const containers = new ContainerLines('first')
  for await (const { text } of new NumberedLines(file === '-' ? process.stdin : createReadStream(file))) {
    found.lines += 1
    bar.advance((text?.length ?? 8192) + 1)
    if (text === undefined) {
      containers.lose()
      found.ignored.add('line is too long')
      continue
    }
    const verdict = recognizer.recognizeFileLine(text, containers, now)
    if (verdict.verdict === 'ignore') {
      found.ignored.add(verdict.tag === undefined ? verdict.reason : `${verdict.tag}: ${verdict.reason}`)
      continue
    }
    if (verdict.verdict === 'drop' && verdict.because !== 'expired') {
      found.ignored.add(`${verdict.daemon}: ${verdict.reason}`)
      continue
    }
    if (verdict.ahead > MAX_AHEAD_MS) found.ahead += 1
    found.logins += 1
    const counted = found.dialects.get(verdict.dialect) ?? { logins: 0, addresses: new Set(), users: new Set() }
    found.dialects.set(verdict.dialect, counted)
    counted.logins += 1
    if (counted.addresses.size < MAX_DISTINCT) counted.addresses.add(verdict.ip)
    if (counted.users.size < MAX_DISTINCT) counted.users.add(verdict.login)
    const { at } = verdict
    times.first = Math.min(times.first ?? at, at)
    times.last = Math.max(times.last ?? at, at)
    if (verdict.verdict === 'drop') found.expired += 1
    else if (young.size < MAX_DISTINCT || young.has(verdict.ip)) {
      young.set(verdict.ip, {
        ip: verdict.ip,
        at: new Date(at),
        user: verdict.login,
        daemon: verdict.daemon,
        tls: verdict.tls ?? false,
        method: verdict.method,
      })
    }
  }
  bar.end()
  return { ...found, ...times, young: [...young.values()] }
}

/** @throws UsageFault if the file cannot be read. */
function sizeOf(file: string): number {
  try {
    accessSync(file, constants.R_OK)
    const status = statSync(file)
    if (status.isDirectory()) throw new Error('it is a directory')
    return status.size
  } catch (error) {
    throw new UsageFault(`cannot read ${file}: ${messageOf(error)}`, error)
  }
}

function formatReplay({ lines, logins, expired, ahead, first, last, dialects, ignored }: Found, width: number): string {
  const span =
    first === undefined || last === undefined
      ? ''
      : `, logins from ${formatMoment(new Date(first))} to ${formatMoment(new Date(last))}`
  const rows = [...dialects].map(([dialect, counted]) => [
    dialect,
    String(counted.logins),
    String(counted.addresses.size),
    String(counted.users.size),
  ])
  const right = { align: 'right' } as const
  const grants =
    rows.length === 0
      ? 'No line is a login.\n'
      : formatTable(
          [
            { title: 'DAEMON' },
            { title: 'LOGINS', ...right },
            { title: 'ADDRESSES', ...right },
            { title: 'USERS', ...right },
          ],
          rows,
          width,
        )
  const others = ignored
    .entries()
    .slice(0, 30)
    .map(([reason, count]) => [String(count), printable(reason)])
  const rest =
    others.length === 0
      ? ''
      : `\n${formatTable(
          [
            { title: 'LINES', ...right },
            { title: 'NOT A LOGIN', mayShrink: true },
          ],
          others,
          width,
        )}`
  const age =
    expired === 0
      ? ''
      : `${count(expired, 'login is', 'logins are')} too old by the stamp, so authd would grant nothing.\n`
  const zone =
    ahead === 0
      ? ''
      : `${count(ahead, 'login has a stamp', 'logins have stamps')} in the future, because the daemon has another clock or time zone. They count as logins of now.\n`
  return `${count(lines, 'line')}, ${count(logins, 'login')}${span}\n\n${grants}${rest}\n${age}${zone}`
}

/**
 * Counts of the most frequent names. The table is bounded: further names are counted together under
 * `(others)`.
 */
class Tally {
  readonly #max: number
  readonly #counts = new Map<string, number>()

  constructor(max = 1000) {
    this.#max = max
  }

  add(name: string, count = 1): void {
    const known = this.#counts.has(name) || this.#counts.size < this.#max
    const key = known ? name : '(others)'
    this.#counts.set(key, (this.#counts.get(key) ?? 0) + count)
  }

  /** Most frequent first. */
  entries(): readonly (readonly [string, number])[] {
    return [...this.#counts].sort(([a, m], [b, n]) => n - m || (a < b ? -1 : 1))
  }
}
