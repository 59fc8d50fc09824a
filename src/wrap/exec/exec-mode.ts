/**
 * Exec mode: one run for each connection in place of qmail-smtpd, with its command line and its few
 * settings.
 */
import { existsSync, statSync, writeSync } from 'node:fs'
import { asError, EXIT, UsageFault } from '../../base/errors.ts'
import { createLog, type Log } from '../../base/log.ts'
import { forbidInspection } from '../../process/privileges.ts'
import { parseDurationIn } from '../../settings/duration.ts'
import { askUnix } from '../../ucspi/ask-unix.ts'
import { type Environment, ownEnvironment } from '../../ucspi/environment.ts'
import { findProgram, type Inheritance, runNext } from '../../ucspi/run-next.ts'
import { formatRelayQuery, MAX_RELAY_QUERY_LINE, parseRelayAnswer } from '../../wire/services/relay-query.ts'
import { type Decision, logDecision, logPreset, relayVariables } from '../decision.ts'

/** The command line of exec mode. */
type ExecLine = {
  readonly words: readonly string[]
  readonly asQmailSmtpd: boolean
  readonly config?: string
}

/**
 * Parses the command lines of exec mode: `wrap SMTPD…`, `wrap --config FILE SMTPD…` (or
 * `--config=FILE`), and each command line under the names of the original program. Undefined for
 * all other command lines, which `parseCommandLine` reads. `script` is the name under which the
 * program was called.
 */
export function parseExecLine(args: readonly string[], script: string): ExecLine | undefined {
  const [first, second, ...rest] = args
  // The launcher adds this word for the names under which the original was installed.
  if (first === '--as-qmail-smtpd') return { words: args.slice(1), asQmailSmtpd: true }
  if (/(^|\/)(qmail-smtpd|auth-wrap)$/.test(script)) return { words: args, asQmailSmtpd: true }
  if (first !== undefined && !first.startsWith('-')) return { words: args, asQmailSmtpd: false }
  const joined = /^--config=(.+)$/s.exec(first ?? '')?.[1]
  const [config, words] = first === '--config' ? [second, rest] : [joined, args.slice(1)]
  if (config === undefined || words[0] === undefined || words[0].startsWith('-')) return undefined
  return { words, asQmailSmtpd: false, config }
}

/** The settings of exec mode, without those for its own query to the database. */
type ExecSettings = {
  readonly qmaildir: string
  readonly qmail_smtpd_noauth: string
  readonly relayclient_value: string
  /** Seconds. */
  readonly wrap_timeout: number
  /** Path of the query socket. Empty: the database is queried. */
  readonly ask: string
}

/**
 * The same defaults as in src/settings/grant-sections.ts; a test compares them. Loading that table
 * would take three times as long as this program may take.
 */
export const EXEC_DEFAULTS: ExecSettings = {
  qmaildir: '/var/qmail',
  qmail_smtpd_noauth: 'qmail-smtpd.noauth',
  relayclient_value: '',
  wrap_timeout: 3,
  ask: '',
}

/** Name of each setting's environment variable. */
const VARIABLES = {
  qmaildir: 'QMAILDIR',
  qmail_smtpd_noauth: 'QMAIL_SMTPD_NOAUTH',
  relayclient_value: 'RELAYCLIENT_VALUE',
  wrap_timeout: 'WRAP_TIMEOUT',
  ask: 'WRAP_ASK',
} as const

/**
 * Reads the few settings that every connection needs, from the environment and from the `[wrap]`
 * table of a settings file. If WRAP_ASK is in the environment, the file is not read, because
 * reading it takes a quarter of the time that an empty program takes to start. `file` undefined:
 * there is no file. Throws UsageFault.
 */
export async function readExecSettings(file: string | undefined, environment: Environment): Promise<ExecSettings> {
  const needsNoFile = file === undefined || environment[VARIABLES.ask] !== undefined
  const table = needsNoFile ? {} : (await import('./wrap-table.ts')).readWrapTable(file)
  const written = (name: keyof ExecSettings): unknown =>
    environment[VARIABLES[name]] ?? table[name] ?? EXEC_DEFAULTS[name]
  const text = (name: keyof ExecSettings): string => {
    const value = written(name)
    if (typeof value !== 'string') throw new UsageFault(`wrap.${name} must be a text`)
    return value
  }
  const seconds = secondsOf(written('wrap_timeout'))
  if (!(seconds >= 1 && seconds <= 30))
    throw new UsageFault('wrap.wrap_timeout must be a duration from "1s" to "30s" in whole seconds')
  const ask = text('ask')
  if (ask !== '' && !ask.startsWith('unix:/')) throw new UsageFault('wrap.ask must be "unix:/PATH"')
  return {
    qmaildir: text('qmaildir'),
    qmail_smtpd_noauth: text('qmail_smtpd_noauth'),
    relayclient_value: text('relayclient_value'),
    wrap_timeout: seconds,
    ask: ask.slice('unix:'.length),
  }
}

/** Returns NaN for a value that is not a duration in whole seconds. */
function secondsOf(written: unknown): number {
  if (typeof written === 'number') return Number.isInteger(written) ? written : Number.NaN
  if (typeof written !== 'string') return Number.NaN
  return /^\d+$/.test(written) ? Number(written) : (parseDurationIn('s', written) ?? Number.NaN)
}

type ExecModeRequest = {
  /** The smtpd and its arguments; with `asQmailSmtpd`, the arguments only. */
  readonly words: readonly string[]
  /** The program was called in place of qmail-smtpd. The settings name the real one. */
  readonly asQmailSmtpd: boolean
  /** Settings file of the command line. Undefined: the default file, if it exists. */
  readonly config?: string | undefined
  readonly inheritance: Inheritance
  /** Path of this program's script, which must not be the smtpd. */
  readonly script: string
}

/** Loads the code that queries the database, only if it is needed. */
type AskDatabase = (file: string | undefined, environment: Environment, timeoutMs: number) => Promise<Decision>

/**
 * Marks the environment of an smtpd with this process's pid. execve keeps the pid, so a process
 * that finds its own pid has run itself in place of the smtpd.
 */
const MARK = 'AUTHRELAY_WRAP_PID'
const CANNOT_RUN = '421 unable to run smtpd (#4.3.0)\r\n'
/** The same path as in src/settings/settings.ts, which is not loaded here. */
const SETTINGS_FILE = '/etc/auth-relay.toml'
/** Rough form of an address. The gate or the database checks it exactly. */
const ADDRESS = /^[0-9A-Fa-f:.]{2,45}$/

/**
 * Takes the place of qmail-smtpd: queries whether the client may relay, sets RELAYCLIENT if it may,
 * and replaces this process with the real smtpd. Never reads descriptor 0. If the smtpd cannot run,
 * writes a reply to descriptor 1 and returns an exit status.
 *
 * Runs once for each connection. Imports of this file must load fast compared with the start of an
 * empty program; node:net, the address library and the settings table do not.
 */
export async function execMode(request: ExecModeRequest, askDatabase: AskDatabase): Promise<number> {
  const log = createLog('wrap')
  const environment = ownEnvironment()
  forbidInspection()
  const file = request.config ?? (existsSync(SETTINGS_FILE) ? SETTINGS_FILE : undefined)
  let settings: ExecSettings = EXEC_DEFAULTS
  let decision: Decision | undefined
  try {
    settings = await readExecSettings(file, environment)
  } catch (error) {
    decision = failed(error)
  }
  const argv = request.asQmailSmtpd ? [realSmtpd(settings), ...request.words] : request.words
  const program = findProgram(argv[0] ?? '', textOf(environment, 'PATH'))
  if (program === undefined) return cannotRun(log, `${argv[0] ?? ''} is not a program that this account may run`)
  if (environment[MARK] === String(process.pid) || isSameFile(program, request.script))
    return cannotRun(log, `${program} is the gate itself: name the real smtpd`)
  const ip = textOf(environment, 'TCPREMOTEIP') ?? textOf(environment, 'TCP6REMOTEIP')
  let variables: Readonly<Record<string, string>> = {}
  if (environment['RELAYCLIENT'] !== undefined) logPreset(log, { ip })
  else {
    if (ip === undefined || !ADDRESS.test(ip)) decision = { relay: false, reason: 'no_address' }
    decision ??= await decisionAbout(ip ?? '', settings, () =>
      askDatabase(file, environment, settings.wrap_timeout * 1000),
    )
    logDecision(log, decision, { ip })
    variables = relayVariables(decision, settings.relayclient_value)
  }
  const changes = { ...variables, [MARK]: String(process.pid) }
  const name = request.asQmailSmtpd ? program.slice(program.lastIndexOf('/') + 1) : (argv[0] ?? program)
  const failure = runNext(program, [name, ...argv.slice(1)], changes, request.inheritance)
  return cannotRun(log, failure.message)
}

const realSmtpd = ({ qmaildir, qmail_smtpd_noauth }: ExecSettings): string =>
  qmail_smtpd_noauth.startsWith('/') ? qmail_smtpd_noauth : `${qmaildir}/bin/${qmail_smtpd_noauth}`

/**
 * Queries the gate, or the database if no gate is configured. After an error the relay stays
 * closed.
 */
async function decisionAbout(
  ip: string,
  { ask, wrap_timeout }: ExecSettings,
  askDatabase: () => Promise<Decision>,
): Promise<Decision> {
  try {
    if (ask === '') return await askDatabase()
    const line = askUnix(ask, formatRelayQuery({ ip }), MAX_RELAY_QUERY_LINE, wrap_timeout * 1000)
    const answer = parseRelayAnswer(line)
    if (answer === undefined || answer.verdict === 'unknown') throw new Error('the resident gate has no answer')
    if (answer.verdict !== 'yes') return { relay: false, reason: 'no_grant' }
    return { relay: true, until: answer.until, login: answer.login }
  } catch (error) {
    return failed(error)
  }
}

const failed = (error: unknown): Decision => ({
  relay: false,
  reason: 'error',
  error: asError(error),
})

function cannotRun(log: Log, reason: string): number {
  log.error('smtpd_start_failed', { reason })
  try {
    writeSync(1, CANNOT_RUN)
  } catch {
    // The client has closed the connection.
  }
  return EXIT.temporary
}

const textOf = (environment: Environment, name: string): string | undefined => {
  const value = environment[name]
  return typeof value === 'string' ? value : undefined
}

function isSameFile(a: string, b: string): boolean {
  const [first, second] = [a, b].map(path => statSync(path, { throwIfNoEntry: false }))
  return first !== undefined && first.ino === second?.ino && first.dev === second.dev
}
