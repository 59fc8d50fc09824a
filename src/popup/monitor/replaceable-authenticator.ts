/** The authenticator of the monitor, by the checker of the settings, and its change at a reload. */
import { systemClock } from '../../base/clock.ts'
import { asError, UsageFault } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { BoundSocket } from '../../process/listener.ts'
import type { Ids } from '../../process/privileges.ts'
import { programBeside } from '../../process/worker-process.ts'
import type { Settings } from '../../settings/settings.ts'
import type { EngineChoice } from '../../sockets/select-engine.ts'
import { type Environment, ownEnvironment } from '../../ucspi/environment.ts'
import type { MaildropWorkerSettings } from '../../wire/workers/maildrop-worker.ts'
import { ReplaceableChecker } from '../checkers/checker.ts'
import { inheritable } from '../checkers/checkpassword.ts'
import { checkerFingerprint, makeChecker, programQueue } from '../checkers/make-checker.ts'
import { ChainRunner, type ChainRunnerOptions } from './chain-runner.ts'
import type { LoginsParts } from './logins.ts'
import { MaildropWorkers } from './maildrop-workers.ts'

export type ReplaceableAuthenticator = {
  readonly authenticator: LoginsParts['authenticator']
  /** Directory of the sockets that the login processes connect to. */
  readonly directory: string
  /** Puts new settings in force. Throws UsageFault before it has changed anything. */
  use(settings: Settings): Promise<void>
  /** Stops the workers after their sessions, and closes the checker. */
  stop(): Promise<void>
}

/** The parts of the monitor that an authenticator needs. */
type Surroundings = {
  readonly loginIds: Ids | undefined
  /** For each login process the socket for chained programs. */
  readonly chainListeners: readonly BoundSocket[]
  /** Engine of the maildrop workers. */
  readonly engine: EngineChoice
  readonly log: Log
}

/** @throws UsageFault if settings or files of the checker are wrong. */
export async function makeAuthenticator(
  settings: Settings,
  surroundings: Surroundings,
): Promise<ReplaceableAuthenticator> {
  const environment = inheritable(ownEnvironment())
  requireCommands(settings)
  const { checker } = settings.popup
  if (checker === 'upstream') return upstreamAuthenticator(settings)
  if (checker === 'chain') return chainAuthenticator(settings, environment, surroundings)
  return checkerAuthenticator(checker, settings, environment, surroundings)
}

function upstreamAuthenticator(settings: Settings): ReplaceableAuthenticator {
  let checks = programQueue(settings)
  return {
    authenticator: { kind: 'upstream', checks: () => checks },
    directory: settings.top.run_dir,
    use: ifChanged(settings, async next => {
      checks = programQueue(next)
    }),
    stop: async () => {},
  }
}

function chainAuthenticator(
  settings: Settings,
  environment: Environment,
  { chainListeners }: Surroundings,
): ReplaceableAuthenticator {
  const chains = new ChainRunner({ ...chainOptions(settings, environment), listeners: chainListeners })
  const replace = ifChanged(settings, async next => chains.use(chainOptions(next, environment)))
  return {
    authenticator: { kind: 'chain', chains },
    directory: settings.top.run_dir,
    use: async next => {
      requireCommands(next)
      await replace(next)
    },
    stop: async () => {},
  }
}

async function checkerAuthenticator(
  name: Parameters<typeof makeChecker>[0],
  settings: Settings,
  environment: Environment,
  { loginIds, engine, log }: Surroundings,
): Promise<ReplaceableAuthenticator> {
  const { top } = settings
  const checker = new ReplaceableChecker(await makeChecker(name, settings, environment, log))
  const workers = new MaildropWorkers(
    {
      runDir: top.run_dir,
      program: programBeside('pop3d'),
      loginIds,
      logLevel: top.log_level,
      engine,
      settings: workerSettings(settings),
    },
    log,
    systemClock,
  )
  const replace = ifChanged(settings, async next => {
    const nextChecker = await makeChecker(name, next, environment, log)
    checker.use(nextChecker).catch((error: unknown) => {
      log.warn('checker_close_failed', { reason: asError(error) })
    })
  })
  return {
    authenticator: { kind: 'checker', checker, workers },
    directory: workers.directory,
    use: async next => {
      requireCommands(next)
      await replace(next)
      await workers.use(workerSettings(next))
    },
    stop: async () => {
      await workers.stop()
      await checker.close()
    },
  }
}

/** Makes a function that calls `replace` if settings need another checker than those before. */
function ifChanged(settings: Settings, replace: (next: Settings) => Promise<void>): (next: Settings) => Promise<void> {
  let fingerprint = checkerFingerprint(settings)
  return async next => {
    const nextFingerprint = checkerFingerprint(next)
    if (nextFingerprint !== fingerprint) await replace(next)
    fingerprint = nextFingerprint
  }
}

/** The parts of the chain of programs that a reload replaces. */
export const chainOptions = (settings: Settings, environment: Environment): Omit<ChainRunnerOptions, 'listeners'> => ({
  checker: settings.popup.checkpassword,
  program: settings.popup.chain,
  environment,
  checkTimeout: settings.popup.check_timeout * 1000,
  programs: programQueue(settings),
})

/** The settings that a reload sends to the workers for maildrops. */
export const workerSettings = ({ popup, pop3d }: Settings): MaildropWorkerSettings => ({
  compat: popup.compat,
  sizes: pop3d.sizes,
  extraBlank: pop3d.extra_blank,
  lock: pop3d.lock,
  idleTime: pop3d.idle_time,
  workerIdle: pop3d.worker_idle,
  capabilities: {
    user: true,
    sasl: ['PLAIN', 'LOGIN'],
    loginDelay: popup.login_delay,
    implementation: 'auth-relay',
  },
})

/** The programs that the kind of checker needs are named. */
function requireCommands({ popup }: Settings): void {
  if (popup.checker === 'checkpassword' || popup.checker === 'chain')
    requireCommand(popup.checkpassword, 'checkpassword')
  if (popup.checker === 'chain') requireCommand(popup.chain, 'chain')
}

function requireCommand(words: readonly string[], setting: string): void {
  if (words.length === 0) {
    throw new UsageFault(`popup.${setting} must name a program and its arguments, e.g. ["/bin/checkpassword"]`)
  }
}
