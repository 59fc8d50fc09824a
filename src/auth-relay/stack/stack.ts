/** The order in which `auth-relay up` starts, reloads and stops the database and the programs. */

import { chmodSync, mkdirSync, rmSync } from 'node:fs'
import { messageOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { programBeside } from '../../process/worker-process.ts'
import { passwordFileOf } from '../../settings/database-connection.ts'
import { restartFields } from '../../settings/reload.ts'
import { readSecretFile } from '../../settings/secret.ts'
import {
  loadSettingsFile,
  parseSettings,
  readSettingsText,
  requireConfigured,
  type Settings,
} from '../../settings/settings.ts'
import { MAX_MESSAGE } from '../../wire/workers/control-channel.ts'
import type { ReloadOrder } from '../../wire/workers/supervised-program.ts'
import { lockDirectory } from './directory-lock.ts'
import { checkBeforeStart, partsInUse } from './plan.ts'
import { programEnvironment, SupervisedProgram } from './supervised-program.ts'
import { startDatabase } from './up-database.ts'

type Environment = Readonly<Record<string, string | undefined>>

export type UpOptions = {
  readonly config: string
  readonly environment: Environment
  readonly log: Log
}

/** The running stack: the ready text of each program, e.g. `listen=127.0.0.1:1110`. */
export type Stack = RunningDaemon & { readonly programs: ReadonlyMap<string, string> }

/**
 * Longest settings file that a reload passes to the programs, in characters of JSON. A secret also
 * fits into the message.
 */
const MAX_SETTINGS = MAX_MESSAGE - 10_000
/** Time limit of a program for its ready line, in milliseconds. */
const READY_WITHIN_MS = 30_000
/** Time limit of a program for its end after the end of its sessions, in milliseconds. */
const STOP_GRACE_MS = 5000
/**
 * Time limit of authd for reading the last lines of its syslog connections and storing the rest, in
 * seconds.
 */
const AUTHD_FLUSH_S = 36

/**
 * Starts the whole stack in order: database, authd, popup, sslwrap, wrap, status page, alerts. Each
 * starts when the one before is ready. A fault is reported once, and every started program is
 * stopped.
 * @throws UsageFault or TemporaryFault, with the remedy; nothing runs then.
 */
export async function startStack(options: UpOptions): Promise<Stack> {
  const { config, environment, log } = options
  const { settings } = loadSettingsFile(config, environment)
  requireConfigured(settings, config)
  await checkBeforeStart(settings)
  const parts: { stop(): Promise<void> }[] = []
  const stopAll = async (): Promise<void> => {
    for (const part of parts.splice(0).reverse()) await part.stop()
  }
  const interruption = new Interruption()
  try {
    const running = await Promise.race([interruption.happened, startParts(options, settings, parts)])
    log.info('stack_started', { config, programs: [...running.ready.keys()].join(',') })
    return {
      programs: running.ready,
      ready: [...running.ready].map(([name, text]) => `${name}.${text.replaceAll(' ', ` ${name}.`)}`).join(' '),
      reload: () => {
        const text = readSettingsText(config)
        const next = parseSettings(text, config, environment).settings
        requireConfigured(next, config)
        const orders = running.programs.map(program => [program, filesFor(program.name, config, text, next)] as const)
        for (const [program, files] of orders) program.reload(files)
        const names = programsOf(next).map(({ name }) => name)
        const started = running.programs.map(({ name }) => name)
        const other = [...new Set([...names, ...started])].filter(
          name => !(names.includes(name) && started.includes(name)),
        )
        log.info('settings_reloaded', {
          ...restartFields('up', settings, next),
          programs_changed: other.join(' ') || undefined,
        })
      },
      stop: stopAll,
    }
  } catch (error) {
    await stopAll()
    throw error
  } finally {
    interruption.end()
  }
}

async function startParts(
  { config, environment, log }: UpOptions,
  settings: Settings,
  parts: { stop(): Promise<void> }[],
) {
  makeDirectory(settings.top.state_dir, 'state_dir')
  makeDirectory(settings.top.run_dir, 'run_dir')
  parts.push(lockDirectory(settings.top.state_dir))
  parts.push(await startDatabase(settings, log))
  const ready = new Map<string, string>()
  const programs: SupervisedProgram[] = []
  for (const { name, drainSeconds, script = name, words = [] } of programsOf(settings)) {
    const spec = {
      name,
      script: programBeside(script),
      args: [...words, '--config', config],
      env: programEnvironment(name, environment),
      readyWithin: READY_WITHIN_MS,
      stopWithin: drainSeconds * 1000 + STOP_GRACE_MS,
    }
    const program = new SupervisedProgram(spec, log)
    parts.push(program)
    programs.push(program)
    ready.set(name, await program.start())
    if (name === 'authd') parts.push(removal([settings.authd.socket, settings.authd.usage_socket]))
  }
  return { ready, programs }
}

/**
 * The files that a program may have to read again, and cannot read after it drops root. Each
 * program gets only its own secrets.
 * @throws UsageFault if one of the files cannot be used.
 */
function filesFor(program: string, config: string, text: string, settings: Settings): ReloadOrder['files'] {
  if (JSON.stringify(text).length > MAX_SETTINGS) {
    throw new UsageFault(`${config} is longer than ${MAX_SETTINGS} characters: shorten it, or restart auth-relay up`)
  }
  const secret = program === 'wrap' ? passwordFileOf(settings, 'reader') : ''
  return { [config]: text, ...(secret === '' ? {} : { [secret]: readSecretFile(secret).reveal() }) }
}

/**
 * Sockets that their program could not remove, because it dropped the right to write in the
 * directory.
 */
const removal = (paths: readonly string[]): { stop(): Promise<void> } => ({
  stop: async () => {
    for (const path of paths) if (path !== '') rmSync(path, { force: true })
  },
})

type ProgramOfStack = {
  readonly name: string
  readonly drainSeconds: number
  /** The program's file, if it is not its own, and the words before its options. */
  readonly script?: string
  readonly words?: readonly string[]
}

/**
 * The programs that the settings need, in the order of their start, with their drain times in
 * seconds.
 */
function programsOf(settings: Settings): readonly ProgramOfStack[] {
  const { popup, sslwrap, wrap } = settings
  const parts = partsInUse(settings)
  const programs: ProgramOfStack[] = [{ name: 'authd', drainSeconds: AUTHD_FLUSH_S }]
  if (parts.popup) programs.push({ name: 'popup', drainSeconds: popup.drain_time })
  if (parts.sslwrap) programs.push({ name: 'sslwrap', drainSeconds: sslwrap.drain_time })
  if (parts.gate) programs.push({ name: 'wrap', drainSeconds: wrap.drain_time })
  if (parts.statusPage) {
    programs.push({ name: 'status-page', drainSeconds: 0, script: 'auth-relay', words: ['status-page'] })
  }
  if (parts.alerts) programs.push({ name: 'alerts', drainSeconds: 0, script: 'auth-relay', words: ['alerts', 'run'] })
  return programs
}

/** Other accounts pass through it to their sockets. An existing directory keeps its mode. */
function makeDirectory(path: string, setting: string): void {
  try {
    if (mkdirSync(path, { recursive: true }) !== undefined) chmodSync(path, 0o755)
  } catch (error) {
    const why = messageOf(error)
    throw new UsageFault(`cannot make ${path}: ${why}: start as root, or change ${setting}`, error)
  }
}

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * A promise that rejects at Ctrl-C or SIGTERM during the start, so that the started programs can be
 * stopped.
 */
class Interruption {
  readonly happened: Promise<never>
  readonly #listener: (signal: NodeJS.Signals) => void

  constructor() {
    const { promise, reject } = Promise.withResolvers<never>()
    this.happened = promise
    this.#listener = signal => reject(new TemporaryFault(`${signal} before everything was ready: stopped`))
    for (const signal of SIGNALS) process.on(signal, this.#listener)
    // A rejection without a waiting caller is not a fault.
    promise.catch(() => {})
  }

  /** Restores the previous actions of the signals. */
  end(): void {
    for (const signal of SIGNALS) process.removeListener(signal, this.#listener)
  }
}
