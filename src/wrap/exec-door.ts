import { statSync, writeSync } from 'node:fs'
import { basename } from 'node:path'
import { EXIT } from '../daemon/exit-status.ts'
import { createLog, type Log } from '../daemon/log.ts'
import type { Settings } from '../daemon/settings/settings.ts'
import { remoteIpOf } from '../ucspi/connection.ts'
import { type Environment, ownEnvironment } from '../ucspi/environment.ts'
import { findProgram } from '../ucspi/find-program.ts'
import { type Inheritance, runNext } from '../ucspi/run-next.ts'
import { type Decision, decide, logDecision, relayVariables } from './decision.ts'
import { smtpdCommand } from './smtpd-command.ts'

export type ExecDoorRequest = {
  /** The smtpd and its arguments; or, `asQmailSmtpd`, arguments only. */
  readonly words: readonly string[]
  /** Called in place of qmail-smtpd: the settings say where the real one is. */
  readonly asQmailSmtpd: boolean
  /** Settings file that was asked for; undefined: the usual one, if it is there. */
  readonly config: string | undefined
  readonly inheritance: Inheritance
  /** Our own script, which must not be the smtpd. */
  readonly script: string
}

/** Marks a process that is a gate: execve keeps the pid, so seeing one's own means that the gate ran itself. */
const MARK = 'AUTHRELAY_WRAP_PID'
const CANNOT_RUN = '421 unable to run smtpd (#4.3.0)\r\n'

/**
 * Stands in place of qmail-smtpd: asks whether the client may relay, sets RELAYCLIENT if so, and becomes the real smtpd. Never reads descriptor 0
 * and writes to 1 only if there is no smtpd to run. Answers an exit status only then.
 */
export async function execDoor(request: ExecDoorRequest): Promise<number> {
  const log = createLog('wrap')
  const environment = ownEnvironment()
  const settings = await settingsOf(request, environment)
  if (settings instanceof Error) log.error('error', { relay: false, error: settings })
  const argv = commandOf(request, settings)
  const file = findProgram(argv[0] ?? '', textOf(environment, 'PATH'))
  if (file === undefined) return cannotRun(log, `${argv[0] ?? ''} is no program that this user may run`)
  if (environment[MARK] === String(process.pid) || isSameFile(file, request.script))
    return cannotRun(log, `${file} is the gate itself: name the real smtpd`)
  const decision = await decisionFor(environment, settings)
  logDecision(log, decision, { ip: remoteIpOf(environment) })
  const value = settings instanceof Error ? '' : settings.wrap.relayclient_value
  const changes = { ...relayVariables(decision, value), [MARK]: String(process.pid) }
  const name = request.asQmailSmtpd ? basename(file) : (argv[0] ?? file)
  const failure = runNext(file, [name, ...argv.slice(1)], changes, request.inheritance)
  return cannotRun(log, failure.message)
}

/** Loaded here and not above: a connection that needs no question must not pay for the code of one. */
async function settingsOf({ config }: ExecDoorRequest, environment: Environment): Promise<Settings | Error> {
  try {
    const { loadSettingsFile, parseSettings, SETTINGS_FILE } = await import('../daemon/settings/settings.ts')
    const variables = Object.fromEntries(
      Object.entries(environment).filter((entry): entry is [string, string] => typeof entry[1] === 'string'),
    )
    const file = config ?? SETTINGS_FILE
    const isThere = config !== undefined || statSync(file, { throwIfNoEntry: false }) !== undefined
    return (isThere ? loadSettingsFile(file, variables) : parseSettings('', '(no settings file)', variables)).settings
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error))
  }
}

function commandOf({ words, asQmailSmtpd }: ExecDoorRequest, settings: Settings | Error): readonly string[] {
  if (!asQmailSmtpd) return words
  return settings instanceof Error ? ['/var/qmail/bin/qmail-smtpd.noauth', ...words] : smtpdCommand(settings, words)
}

async function decisionFor(environment: Environment, settings: Settings | Error): Promise<Decision> {
  if (environment['RELAYCLIENT'] !== undefined) return { relay: false, reason: 'preset' }
  const ip = remoteIpOf(environment)
  if (ip === undefined) return { relay: false, reason: 'no_address' }
  if (settings instanceof Error) return { relay: false, reason: 'error', error: settings }
  const timeoutMs = settings.wrap.wrap_timeout * 1000
  try {
    if (settings.wrap.ask?.type === 'unix') {
      const { askSocket } = await import('./ask-socket.ts')
      // The resident gate knows the never-list.
      return await decide(ip, { ask: askSocket(settings.wrap.ask.path), refusal: () => undefined, timeoutMs })
    }
    const { askDatabase } = await import('./ask-database.ts')
    return await decide(ip, { ...askDatabase(settings, 1), timeoutMs })
  } catch (error) {
    return { relay: false, reason: 'error', error: error instanceof Error ? error : new Error(String(error)) }
  }
}

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
