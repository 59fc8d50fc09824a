import { existsSync, statSync, writeSync } from 'node:fs'
import { asError } from '../../base/errors.ts'
import { EXIT } from '../../base/exit-status.ts'
import { createLog, type Log } from '../../base/log.ts'
import { forbidInspection } from '../../process/privileges.ts'
import { askUnix } from '../../ucspi/ask-unix.ts'
import { type Environment, ownEnvironment } from '../../ucspi/environment.ts'
import { findProgram } from '../../ucspi/find-program.ts'
import { type Inheritance, runNext } from '../../ucspi/run-next.ts'
import { MAX_RELAY_QUESTION_LINE, parseRelayAnswer } from '../../wire/relay-query.ts'
import { type Decision, logDecision, relayVariables } from '../decision.ts'
import { EXEC_DEFAULTS, type ExecSettings, readExecSettings } from './exec-settings.ts'

export type ExecModeRequest = {
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
export type AskDatabase = (file: string | undefined, environment: Environment, timeoutMs: number) => Promise<Decision>

/** Marks a process that is a gate: execve keeps the pid, so seeing one's own means that the gate ran itself. */
const MARK = 'AUTHRELAY_WRAP_PID'
const CANNOT_RUN = '421 unable to run smtpd (#4.3.0)\r\n'
/** As in src/settings/settings.ts, which is not loaded where no question to the database is asked. */
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
  log.error('cannot_run', { reason })
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
