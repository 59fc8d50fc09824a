import { existsSync, statSync, writeSync } from 'node:fs'
import { asError, EXIT, UsageFault } from '../../base/errors.ts'
import { createLog, type Log } from '../../base/log.ts'
import { forbidInspection } from '../../process/privileges.ts'
import { parseDurationIn } from '../../settings/duration.ts'
import { type Environment, ownEnvironment } from '../../ucspi/environment.ts'
import { findProgram, type Inheritance, runNext } from '../../ucspi/run-next.ts'
import { askUnix } from '../../ucspi/unwatched-sockets.ts'
import { MAX_RELAY_QUESTION_LINE, parseRelayAnswer } from '../../wire/relay-services.ts'
import { type Decision, logDecision, relayVariables } from '../decision.ts'

/**
 * Exec mode: one run per connection in place of qmail-smtpd, with its command line and its few
 * settings.
 */

/** Words that ask for the exec door. */
type ExecLine = {
  readonly words: readonly string[]
  readonly asQmailSmtpd: boolean
  readonly config?: string
}

/**
 * The exec door's command lines: `wrap SMTPD…`, `wrap --config FILE SMTPD…`, or anything at all
 * under the names of the original's place. Undefined for all others: they
 * are for `parseCommandLine`. `script` is the name we were called by.
 */
export function parseExecLine(args: readonly string[], script: string): ExecLine | undefined {
  const [first, second, ...rest] = args
  // The launcher says so for the names under which the original was installed.
  if (first === '--as-qmail-smtpd') return { words: args.slice(1), asQmailSmtpd: true }
  if (/(^|\/)(qmail-smtpd|auth-wrap)$/.test(script)) return { words: args, asQmailSmtpd: true }
  if (first !== undefined && !first.startsWith('-')) return { words: args, asQmailSmtpd: false }
  if (first === '--config' && second !== undefined && rest[0] !== undefined && !rest[0].startsWith('-'))
    return { words: rest, asQmailSmtpd: false, config: second }
  return undefined
}

/** The settings of the exec door, as far as it does not ask the database itself. */
type ExecSettings = {
  readonly qmaildir: string
  readonly qmail_smtpd_noauth: string
  readonly relayclient_value: string
  /** Seconds. */
  readonly wrap_timeout: number
  /** Path of the question socket; empty: ask the database. */
  readonly ask: string
}

/**
 * The same as in src/settings/grant-sections.ts (a test compares them): that table costs three
 * times as much to load as this program may take.
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
 * Reads the few settings that every connection needs: from the environment, and from the `[wrap]`
 * table of a settings file unless WRAP_ASK is in the
 * environment (reading it costs a quarter of an empty program's start). `file` undefined: there is
 * none. Throws UsageFault.
 */
export async function readExecSettings(file: string | undefined, environment: Environment): Promise<ExecSettings> {
  const isToldAll = file === undefined || environment[VARIABLES.ask] !== undefined
  const table = isToldAll ? {} : (await import('./wrap-table.ts')).readWrapTable(file)
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

/** NaN for a value that is no duration in whole seconds. */
function secondsOf(written: unknown): number {
  if (typeof written === 'number') return Number.isInteger(written) ? written : Number.NaN
  if (typeof written !== 'string') return Number.NaN
  return /^\d+$/.test(written) ? Number(written) : (parseDurationIn('s', written) ?? Number.NaN)
}

type ExecModeRequest = {
  /** The smtpd and its arguments; or, `asQmailSmtpd`, arguments only. */
  readonly words: readonly string[]
  /** Called in place of qmail-smtpd: the settings say where the real one is. */
  readonly asQmailSmtpd: boolean
  /** Settings file that was asked for; undefined: the usual one, if it is there. */
  readonly config?: string | undefined
  readonly inheritance: Inheritance
  /** Our own script, which must not be the smtpd. */
  readonly script: string
}

/** Loads what asks the database; only when it is to be asked. */
type AskDatabase = (file: string | undefined, environment: Environment, timeoutMs: number) => Promise<Decision>

/**
 * Marks a process that is a gate: execve keeps the pid, so seeing one's own means that the gate ran
 * itself.
 */
const MARK = 'AUTHRELAY_WRAP_PID'
const CANNOT_RUN = '421 unable to run smtpd (#4.3.0)\r\n'
/**
 * As in src/settings/settings.ts, which is not loaded where no question to the database is asked.
 */
const SETTINGS_FILE = '/etc/auth-relay.toml'
/** What may be an address at all; whoever answers judges it. */
const ADDRESS = /^[0-9A-Fa-f:.]{2,45}$/

/**
 * Stands in place of qmail-smtpd: asks whether the client may relay, sets RELAYCLIENT if so, and
 * becomes the real smtpd. Never reads descriptor 0
 * and writes to 1 only if there is no smtpd to run. Answers an exit status only then.
 *
 * Runs once a connection: nothing may be loaded above that costs a noticeable part of an empty
 * program's start (node:net, the address library and the
 * settings table do).
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
  if (program === undefined) return cannotRun(log, `${argv[0] ?? ''} is no program that this user may run`)
  if (environment[MARK] === String(process.pid) || isSameFile(program, request.script))
    return cannotRun(log, `${program} is the gate itself: name the real smtpd`)
  const ip = textOf(environment, 'TCPREMOTEIP') ?? textOf(environment, 'TCP6REMOTEIP')
  if (environment['RELAYCLIENT'] !== undefined) decision = { relay: false, reason: 'preset' }
  else if (ip === undefined || !ADDRESS.test(ip)) decision = { relay: false, reason: 'no_address' }
  decision ??= await decisionAbout(ip ?? '', settings, () =>
    askDatabase(file, environment, settings.wrap_timeout * 1000),
  )
  logDecision(log, decision, { ip })
  const changes = { ...relayVariables(decision, settings.relayclient_value), [MARK]: String(process.pid) }
  const name = request.asQmailSmtpd ? program.slice(program.lastIndexOf('/') + 1) : (argv[0] ?? program)
  const failure = runNext(program, [name, ...argv.slice(1)], changes, request.inheritance)
  return cannotRun(log, failure.message)
}

const realSmtpd = ({ qmaildir, qmail_smtpd_noauth }: ExecSettings): string =>
  qmail_smtpd_noauth.startsWith('/') ? qmail_smtpd_noauth : `${qmaildir}/bin/${qmail_smtpd_noauth}`

/** Asks the resident gate, or the database where no gate is named. Whatever fails is a no. */
async function decisionAbout(
  ip: string,
  { ask, wrap_timeout }: ExecSettings,
  askDatabase: () => Promise<Decision>,
): Promise<Decision> {
  try {
    if (ask === '') return await askDatabase()
    const line = askUnix(ask, `relay v=1 ip=${ip}`, MAX_RELAY_QUESTION_LINE, wrap_timeout * 1000)
    const answer = parseRelayAnswer(line)
    if (answer === undefined || answer.verdict === 'unknown') throw new Error('the resident gate has no answer')
    if (answer.verdict === 'no') return { relay: false, reason: 'no_grant' }
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
    // The client is gone; there is nobody to tell.
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
