/**
 * The monitor of popup: the process with rights, which reads nothing from the network.
 *
 * It binds the listening sockets, starts the login processes and the maildrop workers, and answers
 * the requests of the login processes. A login passes these steps, in logins.ts:
 *
 * 1. A login process sends login, password and address of a client (`verify`).
 * 2. The monitor waits for the delay of earlier failures. Then the checker checks the password, in
 *    a queue that is fair by network. A client that disconnects leaves the queue.
 * 3. After a success the maildrop worker of the owner is started, if none runs, and makes a ticket.
 *    At the same time the announcer requests the grant from authd and waits for at most
 *    `grant_wait`.
 * 4. The login process gets the ticket (`open`), answers +OK, and passes the socket and the ticket
 *    to the worker. With a chained program or a server behind popup, the login process relays.
 *
 * A login process may be taken over, so each of its messages is checked and bounded, and a false
 * message ends the process. A reload makes all new objects first and then replaces the old ones, so
 * that a fault changes nothing.
 */
import { mkdirSync } from 'node:fs'
import { monotonicClock, systemClock } from '../../base/clock.ts'
import { asError, UsageFault } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
import { watchDescriptors } from '../../process/connection-limits.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { type BoundSocket, holdListener } from '../../process/listener.ts'
import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import { formatSocketAddress } from '../../process/socket-address.ts'
import { programBeside } from '../../process/worker-process.ts'
import { restartFields } from '../../settings/reload.ts'
import { loadDaemonSettings, type Settings } from '../../settings/settings.ts'
import { type EngineChoice, settledChoice } from '../../sockets/select-engine.ts'
import { type Environment, ownEnvironment } from '../../ucspi/environment.ts'
import { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { MaildropWorkerSettings } from '../../wire/workers/maildrop-worker.ts'
import { ReplaceableChecker } from '../checkers/checker.ts'
import { inheritable } from '../checkers/checkpassword.ts'
import { checkerFingerprint, makeChecker, programQueue } from '../checkers/make-checker.ts'
import { Announcer, loginRefusal } from './announcer.ts'
import { AuthdConnection, type AuthdConnectionTimes } from './authd-connection.ts'
import { ChainRunner, type ChainRunnerOptions } from './chain-runner.ts'
import { FailureDelays, LoginIntervals } from './login-delays.ts'
import { LoginProcesses } from './login-processes.ts'
import { LoginCertificate, loginSettings } from './login-settings.ts'
import { Logins, type LoginsParts } from './logins.ts'
import { MaildropWorkers } from './maildrop-workers.ts'

/**
 * Starts popup. This process is the monitor: it binds, checks and announces, and reads nothing from
 * the network. `program` is the path of popup itself. @throws UsageFault, TemporaryFault; the
 * process then ends, so that nothing is left half-started.
 */
export async function startMonitor(settingsFile: string, program: string): Promise<RunningDaemon> {
  let settings = loadDaemonSettings('popup', settingsFile)
  const log = createLog('popup', { level: settings.top.log_level, byTurn: true })
  watchDescriptors(log)
  // For delays, intervals and allowances: a clock step must neither refuse nor admit a login.
  const clock = monotonicClock
  const { popup, top } = settings
  const loginIds = isRoot() ? idsOf(popup.login_user, 'popup.login_user') : undefined
  if (loginIds?.uid === 0) throw new UsageFault('popup.login_user must not be root: name an account without rights')
  mkdirSync(top.run_dir, { recursive: true, mode: 0o755 })

  const engines = {
    popup: settledChoice(popup.engine, 'popup.engine', log),
    pop3d: settledChoice(settings.pop3d.engine, 'pop3d.engine', log),
  }
  let customers = customersOf(settings)
  const delays = new FailureDelays(popup.fail_delays, clock, customers)
  const listeners = await holdAll(settings)
  const chainListeners = popup.checker === 'chain' ? await holdChainSockets(settings, loginIds) : []
  const started = settings
  const authenticator = await makeAuthenticator(settings, loginIds, chainListeners, engines.pop3d, log)
  const fixed = {
    ids: loginIds,
    engine: engines.popup,
    handoff: engines.pop3d !== 'node',
    directory: authenticator.type === 'checker' ? authenticator.workers.directory : top.run_dir,
    listeners: [
      ...popup.listen.map(() => ({ proxy: false, tls: false })),
      ...popup.proxy_listen.map(() => ({ proxy: true, tls: false })),
      ...popup.tls_listen.map(() => ({ proxy: false, tls: true })),
    ],
  }
  const certificate = new LoginCertificate(log, () => {
    certificate.rotate()
    forLogin = loginSettings(settings, { ...fixed, ticketKeys: certificate.ticketKeys })
    certificate.use(forLogin.stls, certificateFiles(settings))
    processes.reload()
    log.info('certificate_read', { path: settings.popup.stls_cert })
  })
  let forLogin = loginSettings(settings, { ...fixed, ticketKeys: certificate.ticketKeys })
  const authd =
    settings.authd.socket === ''
      ? undefined
      : new AuthdConnection({ path: settings.authd.socket, ...authdTimes(settings) }, log, clock)
  const announcer = new Announcer(authd, loginRefusal(settings), top.syslog, log)
  const intervals = new LoginIntervals(popup.login_delay * 1000, clock)
  const logins = new Logins({
    authenticator,
    delays,
    customers: () => customers,
    intervals,
    announcer,
    checkTimeout: () => settings.popup.check_timeout * 1000,
    log,
  })
  const processes = new LoginProcesses(
    {
      count: popup.logins,
      program,
      listeners,
      chainListeners,
      settings: () => forLogin,
      onMessage: (process, message) => logins.handle(process, message),
      onEnded: process => logins.processEnded(process),
    },
    log,
    clock,
  )
  await processes.start()
  if (loginIds === undefined) {
    log.warn('privileges_shared', { reason: 'popup is not started as root: login, monitor and pop3d are one user' })
  }
  certificate.use(forLogin.stls, certificateFiles(settings))
  return {
    ready: readyLine(settings, listeners),
    reload: async () => {
      const next = loadDaemonSettings('popup', settingsFile)
      const effective = withKept(started, next)
      certificate.rotate()
      const nextForLogin = loginSettings(effective, { ...fixed, ticketKeys: certificate.ticketKeys })
      // Everything that can fail comes first.
      await authenticator.use(effective)
      settings = effective
      forLogin = nextForLogin
      certificate.use(forLogin.stls, certificateFiles(settings))
      customers = customersOf(settings)
      delays.use(settings.popup.fail_delays, customers)
      intervals.use(settings.popup.login_delay * 1000)
      authd?.use(authdTimes(settings))
      announcer.useRefusal(loginRefusal(settings))
      processes.reload()
      log.info('settings_reloaded', { path: settingsFile, ...restartFields('popup', started, next) })
    },
    stop: async () => {
      certificate.close()
      for (const listener of [...listeners, ...chainListeners]) listener.release()
      await processes.stop(settings.popup.drain_time * 1000)
      if (authenticator.type === 'checker') {
        await authenticator.workers.stop()
        await authenticator.checker.close()
      }
      await announcer.close()
    },
  }
}

const certificateFiles = ({ popup }: Settings): readonly string[] => [popup.stls_cert, popup.stls_key]

/** New settings, with the old values of those that only a restart can change. */
const withKept = ({ popup: { checker, logins, login_user } }: Settings, next: Settings): Settings => ({
  ...next,
  popup: { ...next.popup, checker, logins, login_user },
})

/** The time that a login waits for authd, and the time that its event is kept. */
export const authdTimes = ({ popup, grants }: Settings): AuthdConnectionTimes => ({
  grantWait: popup.grant_wait,
  keepFor: grants.exp_time * 1000,
})

const customersOf = ({ grants }: Settings): CustomerNetworks => new CustomerNetworks(grants.nat64_prefixes)

async function holdAll({ popup }: Settings): Promise<BoundSocket[]> {
  const held: BoundSocket[] = []
  for (const address of popup.listen) held.push(await holdListener(address, 'popup.listen'))
  for (const address of popup.proxy_listen) held.push(await holdListener(address, 'popup.proxy_listen'))
  for (const address of popup.tls_listen) held.push(await holdListener(address, 'popup.tls_listen'))
  return held
}

/** One for each login process. The monitor alone connects there. */
async function holdChainSockets({ popup, top }: Settings, loginIds: Ids | undefined): Promise<BoundSocket[]> {
  const directory = `${top.run_dir}/popup`
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const access = { mode: 0o600, ...(loginIds === undefined ? {} : { uid: 0, gid: 0 }) }
  const indexes = Array.from({ length: popup.logins }, (_, index) => index)
  return Promise.all(
    indexes.map(index => holdListener({ type: 'unix', path: `${directory}/chain-${index}.sock` }, 'run_dir', access)),
  )
}

/**
 * The authenticator, and how a reload changes it. `use` throws UsageFault before it has changed
 * anything.
 */
type ReplaceableAuthenticator = LoginsParts['authenticator'] & { use(settings: Settings): Promise<void> }

async function makeAuthenticator(
  settings: Settings,
  loginIds: Ids | undefined,
  chainListeners: readonly BoundSocket[],
  engine: EngineChoice,
  log: ReturnType<typeof createLog>,
): Promise<ReplaceableAuthenticator> {
  const { popup, top } = settings
  const environment = inheritable(ownEnvironment())
  requireCommands(settings)
  if (popup.checker === 'upstream') {
    let checks = programQueue(settings)
    let fingerprint = checkerFingerprint(settings)
    return {
      type: 'upstream',
      checks: () => checks,
      use: async next => {
        const nextFingerprint = checkerFingerprint(next)
        if (nextFingerprint !== fingerprint) checks = programQueue(next)
        fingerprint = nextFingerprint
      },
    }
  }
  if (popup.checker === 'chain') {
    const chains = new ChainRunner({ ...chainOptions(settings, environment), listeners: chainListeners })
    let fingerprint = checkerFingerprint(settings)
    return {
      type: 'chain',
      chains,
      use: async next => {
        requireCommands(next)
        const nextFingerprint = checkerFingerprint(next)
        if (nextFingerprint !== fingerprint) chains.use(chainOptions(next, environment))
        fingerprint = nextFingerprint
      },
    }
  }
  const name = popup.checker
  let fingerprint = checkerFingerprint(settings)
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
  return {
    type: 'checker',
    checker,
    workers,
    use: async next => {
      requireCommands(next)
      const nextFingerprint = checkerFingerprint(next)
      if (nextFingerprint !== fingerprint) {
        const nextChecker = await makeChecker(name, next, environment, log)
        checker.use(nextChecker).catch((error: unknown) => {
          log.warn('checker_close_failed', { reason: asError(error) })
        })
        fingerprint = nextFingerprint
      }
      await workers.use(workerSettings(next))
    },
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

function readyLine({ popup }: Settings, listeners: readonly BoundSocket[]): string {
  const bound = listeners.map(({ address }) => formatSocketAddress(address))
  const secure = bound.splice(popup.listen.length + popup.proxy_listen.length)
  const proxied = bound.splice(popup.listen.length)
  return [
    `listen=${bound.join(',')}`,
    ...(proxied.length > 0 ? [`proxy_listen=${proxied.join(',')}`] : []),
    ...(secure.length > 0 ? [`tls_listen=${secure.join(',')}`] : []),
  ].join(' ')
}
