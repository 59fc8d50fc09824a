/**
 * The monitor of popup: the process with rights, which reads nothing from the network.
 *
 * It binds the listening sockets, starts the login processes and the maildrop workers, and answers
 * the requests of the login processes. A login passes these steps, in logins.ts:
 *
 * 1. A login process sends login, password and address of a client (`verify`).
 * 2. The monitor waits for the delay of earlier failures. Then the checker checks the password, in
 *    a queue that is fair by network. A client that disconnects leaves the queue.
 * 3. After a success the monitor starts the maildrop worker of the owner, if none runs, and signs a
 *    ticket. At the same time the announcer requests the grant from authd and waits for at most
 *    `grant_wait`.
 * 4. The login process gets the ticket (`open`), answers +OK, and passes the socket and the ticket
 *    to the worker. With a chained program or a server behind popup, the login process relays.
 *
 * A login process may be taken over, so each of its messages is checked and bounded, and a false
 * message ends the process. A reload makes all new objects first and then replaces the old ones, so
 * that a fault changes nothing.
 */
import { mkdirSync } from 'node:fs'
import { monotonicClock } from '../../base/clock.ts'
import { UsageFault } from '../../base/errors.ts'
import { createLog, type Log } from '../../base/log.ts'
import { watchDescriptors } from '../../process/connection-limits.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import { type BoundSocket, holdListener } from '../../process/listener.ts'
import { type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import { formatSocketAddress } from '../../process/socket-address.ts'
import { restartFields } from '../../settings/reload.ts'
import { loadDaemonSettings, type Settings } from '../../settings/settings.ts'
import { settledChoice } from '../../sockets/select-engine.ts'
import { CustomerNetworks } from '../../wire/customer-networks.ts'
import { Announcer, loginRefusal } from './announcer.ts'
import { AuthdConnection, type AuthdConnectionTimes } from './authd-connection.ts'
import { FailureDelays, LoginIntervals } from './login-delays.ts'
import { LoginProcesses } from './login-processes.ts'
import { CurrentLoginSettings, type FixedLoginSettings } from './login-settings.ts'
import { Logins } from './logins.ts'
import { makeAuthenticator, type ReplaceableAuthenticator } from './replaceable-authenticator.ts'

/**
 * Starts popup. This process is the monitor: it binds, checks and announces, and reads nothing from
 * the network. `program` is the path of popup itself. @throws UsageFault, TemporaryFault; the
 * process then ends, so that nothing is left half-started.
 */
export async function startMonitor(settingsFile: string, program: string): Promise<RunningDaemon> {
  const settings = loadDaemonSettings('popup', settingsFile)
  const log = createLog('popup', { level: settings.top.log_level, byTurn: true })
  watchDescriptors(log)
  const loginIds = loginAccount(settings)
  mkdirSync(settings.top.run_dir, { recursive: true, mode: 0o755 })
  const engines = {
    popup: settledChoice(settings.popup.engine, 'popup.engine', log),
    pop3d: settledChoice(settings.pop3d.engine, 'pop3d.engine', log),
  }
  const listeners = await holdListeners(settings, loginIds)
  const authenticator = await makeAuthenticator(settings, {
    loginIds,
    chainListeners: listeners.chain,
    engine: engines.pop3d,
    log,
  })
  const monitor = new Monitor(settings, {
    settingsFile,
    program,
    listeners,
    authenticator,
    fixed: {
      ids: loginIds,
      engine: engines.popup,
      handoff: engines.pop3d !== 'node',
      directory: authenticator.directory,
      listeners: listenerKinds(settings),
    },
    log,
  })
  await monitor.start()
  return {
    ready: readyLine(settings, listeners.clients),
    reload: () => monitor.reload(),
    stop: () => monitor.stop(),
  }
}

/** The account of the login processes; undefined if this process cannot change accounts. */
function loginAccount({ popup }: Settings): Ids | undefined {
  const ids = isRoot() ? idsOf(popup.login_user, 'popup.login_user') : undefined
  if (ids?.uid === 0) throw new UsageFault('popup.login_user must not be root: name an account without rights')
  return ids
}

/** The parts that no reload replaces. */
type MonitorParts = {
  readonly settingsFile: string
  readonly program: string
  readonly listeners: HeldListeners
  readonly authenticator: ReplaceableAuthenticator
  readonly fixed: FixedLoginSettings
  readonly log: Log
}

/** The monitor while it runs: its parts, and their change at a reload. */
class Monitor {
  readonly #parts: MonitorParts
  readonly #started: Settings
  #settings: Settings
  #customers: CustomerNetworks
  readonly #delays: FailureDelays
  readonly #intervals: LoginIntervals
  readonly #authd: AuthdConnection | undefined
  readonly #announcer: Announcer
  readonly #forLogin: CurrentLoginSettings
  readonly #processes: LoginProcesses

  constructor(settings: Settings, parts: MonitorParts) {
    const { program, listeners, authenticator, fixed, log } = parts
    const { popup, top, authd } = settings
    // For delays, intervals and allowances: a clock step must neither refuse nor admit a login.
    const clock = monotonicClock
    this.#parts = parts
    this.#started = settings
    this.#settings = settings
    this.#customers = customersOf(settings)
    this.#delays = new FailureDelays(popup.fail_delays, clock, this.#customers)
    this.#intervals = new LoginIntervals(popup.login_delay * 1000, clock)
    this.#authd =
      authd.socket === '' ? undefined : new AuthdConnection({ path: authd.socket, ...authdTimes(settings) }, log, clock)
    this.#announcer = new Announcer(this.#authd, loginRefusal(settings), top.syslog, log)
    this.#forLogin = new CurrentLoginSettings(settings, fixed, log, () => this.#processes.reload())
    const logins = new Logins({
      authenticator: authenticator.authenticator,
      delays: this.#delays,
      customers: () => this.#customers,
      intervals: this.#intervals,
      announcer: this.#announcer,
      checkTimeout: () => this.#settings.popup.check_timeout * 1000,
      log,
    })
    this.#processes = new LoginProcesses(
      {
        count: popup.logins,
        program,
        listeners: listeners.clients,
        chainListeners: listeners.chain,
        settings: () => this.#forLogin.message,
        onMessage: (process, message) => logins.handle(process, message),
        onEnded: process => logins.processEnded(process),
      },
      log,
      clock,
    )
  }

  async start(): Promise<void> {
    const { fixed, log } = this.#parts
    await this.#processes.start()
    if (fixed.ids === undefined) {
      log.warn('privileges_shared', { reason: 'popup is not started as root: login, monitor and pop3d are one user' })
    }
    this.#forLogin.watchCertificate()
  }

  /** Everything that can fail comes first, so that a fault changes nothing. */
  async reload(): Promise<void> {
    const { settingsFile, authenticator, log } = this.#parts
    const next = loadDaemonSettings('popup', settingsFile)
    const effective = withKept(this.#started, next)
    const useForLogin = this.#forLogin.prepare(effective)
    await authenticator.use(effective)
    this.#settings = effective
    useForLogin()
    this.#customers = customersOf(effective)
    this.#delays.use(effective.popup.fail_delays, this.#customers)
    this.#intervals.use(effective.popup.login_delay * 1000)
    this.#authd?.use(authdTimes(effective))
    this.#announcer.useRefusal(loginRefusal(effective))
    this.#processes.reload()
    log.info('settings_reloaded', { path: settingsFile, ...restartFields('popup', this.#started, next) })
  }

  async stop(): Promise<void> {
    const { listeners, authenticator } = this.#parts
    this.#forLogin.close()
    for (const listener of [...listeners.clients, ...listeners.chain]) listener.release()
    await this.#processes.stop(this.#settings.popup.drain_time * 1000)
    await authenticator.stop()
    await this.#announcer.close()
  }
}

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

type HeldListeners = {
  readonly clients: readonly BoundSocket[]
  /** For each login process the socket for chained programs. */
  readonly chain: readonly BoundSocket[]
}

async function holdListeners(settings: Settings, loginIds: Ids | undefined): Promise<HeldListeners> {
  const clients = await holdAll(settings)
  return { clients, chain: settings.popup.checker === 'chain' ? await holdChainSockets(settings, loginIds) : [] }
}

/** The protocol that the clients of each listening socket begin with. */
const listenerKinds = ({ popup }: Settings): FixedLoginSettings['listeners'] => [
  ...popup.listen.map(() => ({ proxy: false, tls: false })),
  ...popup.proxy_listen.map(() => ({ proxy: true, tls: false })),
  ...popup.tls_listen.map(() => ({ proxy: false, tls: true })),
]

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
    indexes.map(index => holdListener({ kind: 'unix', path: `${directory}/chain-${index}.sock` }, 'run_dir', access)),
  )
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
