/** The gate as a daemon: its accounts, its listening sockets, its start, reload and stop. */
import type { Server } from 'node:net'
import { monotonicClock, systemClock } from '../../base/clock.ts'
import { UsageFault } from '../../base/errors.ts'
import { watchDescriptors } from '../../process/connection-limits.ts'
import type { RunningDaemon } from '../../process/lifecycle.ts'
import type { LineServer } from '../../process/line-server.ts'
import { holdListener, openListener } from '../../process/listener.ts'
import { dropPrivileges, gidOf, type Ids, idsOf, isRoot } from '../../process/privileges.ts'
import { formatSocketAddress, type SocketAddress } from '../../process/socket-address.ts'
import { makeSocketDirectory } from '../../process/unix-sockets.ts'
import { databaseGroups } from '../../settings/database-connection.ts'
import { restartFields } from '../../settings/reload.ts'
import type { Settings } from '../../settings/settings.ts'
import type { Engine } from '../../sockets/engine.ts'
import { selectEngine } from '../../sockets/select-engine.ts'
import { ownEnvironment } from '../../ucspi/environment.ts'
import { shareOpenFilesLimit } from '../../ucspi/run-next.ts'
import { ClientFaultTimes } from '../front/client-faults.ts'
import { MailCounts } from '../mail-counts.ts'
import { CdbExport } from '../services/cdb-export.ts'
import { policyService } from '../services/policy-service.ts'
import { queryService } from '../services/query-service.ts'
import { socketmapService } from '../services/socketmap-service.ts'
import { GateSetup } from './gate-setup.ts'
import { ResidentGate, type ResidentGateOptions } from './resident-gate.ts'
import { Starters } from './starters.ts'

/**
 * Descriptors for other uses than connections: listening sockets, the database, refused clients.
 */
const OTHER_DESCRIPTORS = 256

/**
 * Starts the gate and all services that the settings open. Binds sockets and reads secrets, then
 * drops root, then serves. SIGHUP calls `load` again; if `load` throws, the old settings stay in
 * force.
 */
export async function startGate(load: () => Settings): Promise<RunningDaemon> {
  const settings = load()
  const { wrap } = settings
  // Read now, because /proc hides the environment from this process after the change of account.
  const environment = ownEnvironment()
  const setup = new GateSetup(settings, environment)
  watchDescriptors(setup.log)
  const accounts = gateAccounts(settings)
  if (accounts.notSeparated !== undefined) setup.log.warn('privileges_shared', { reason: accounts.notSeparated })
  const engine = selectEngine(wrap.engine, 'wrap.engine', setup.log)
  engine.logLimits(setup.log)
  const services = new Services(setup, accounts.gate, engine)
  try {
    const starters = accounts.smtpd === undefined ? undefined : await services.startStarters(accounts.smtpd)
    const listening = [
      ...(await services.listenForGate(wrap.listen)),
      ...(await services.listen('wrap.policy_listen', wrap.policy_listen, () => policyService(services.policyOptions))),
      ...(await services.listen('wrap.socketmap_listen', wrap.socketmap_listen, () =>
        socketmapService(() => services.setup.serviceOptions('socketmap')),
      )),
      ...(await services.listen('wrap.query_listen', wrap.query_listen, () => queryService(services.queryOptions))),
    ]
    if (listening.length === 0 && wrap.tcprules_cdb === '')
      throw new UsageFault(
        'the gate has no service: set wrap.listen, wrap.policy_listen, wrap.query_listen or wrap.tcprules_cdb',
      )
    if (accounts.gate !== undefined) dropPrivileges(accounts.gate, databaseGroups(settings))
    if (wrap.tcprules_cdb !== '') await services.startCdb()
    return {
      ready: [...listening, ...(wrap.tcprules_cdb === '' ? [] : [`cdb=${wrap.tcprules_cdb}`])].join(' '),
      reload: () => services.use(new GateSetup(load(), environment)),
      stop: () => services.stop(),
      ...(starters === undefined ? {} : { failed: starters.failed }),
    }
  } catch (error) {
    services.abandon()
    await setup.close()
    throw error
  }
}

/** State that survives a reload: sockets, running smtpds, counts, faults of clients. */
class Services {
  #setup: GateSetup
  readonly #started: Settings
  readonly #servers: Server[] = []
  readonly #mailCounts: MailCounts
  readonly #faults = new ClientFaultTimes(systemClock)
  readonly #owner: Ids | undefined
  readonly #engine: Engine
  #starters: Starters | undefined
  #openFiles = 0
  #gate: ResidentGate | undefined
  #cdb: CdbExport | undefined

  /**
   * `owner`: the account that the gate will have, for the directories of its Unix sockets.
   * Undefined: the gate keeps its account.
   */
  constructor(setup: GateSetup, owner: Ids | undefined, engine: Engine) {
    this.#engine = engine
    this.#setup = setup
    this.#started = setup.settings
    this.#owner = owner
    this.#mailCounts = new MailCounts(setup.settings.wrap, monotonicClock)
  }

  get setup(): GateSetup {
    return this.#setup
  }

  readonly policyOptions = () => this.#setup.policyOptions(this.#mailCounts)
  readonly queryOptions = () => this.#setup.queryOptions(this.#mailCounts, this.#faults)

  /** Opens a server for each address of a setting. Returns the addresses for the ready line. */
  async listen<Request>(
    setting: string,
    addresses: readonly SocketAddress[],
    newServer: () => LineServer<Request>,
  ): Promise<string[]> {
    const name = setting.replace('wrap.', '').replace('_listen', '')
    const texts: string[] = []
    const { top, wrap } = this.#setup.settings
    const group = wrap.socket_group === '' ? {} : { gid: gidOf(wrap.socket_group, 'wrap.socket_group') }
    for (const address of addresses) {
      makeSocketDirectory(address, { runDir: top.run_dir, setting, owner: this.#owner })
      const { server } = newServer()
      this.#servers.push(server)
      const access = { ...this.#owner, ...group, mode: Number.parseInt(wrap.socket_mode, 8) }
      texts.push(`${name}=${formatSocketAddress(await openListener(server, address, setting, access))}`)
    }
    if (this.#gate !== undefined) this.#shareOpenFiles()
    return texts
  }

  /** Opens the listening sockets of the gate, otherwise like `listen`. */
  async listenForGate(addresses: readonly SocketAddress[]): Promise<string[]> {
    const texts: string[] = []
    for (const address of addresses) {
      const held = await holdListener(address, 'wrap.listen')
      this.#gateForAll().listen(held)
      texts.push(`listen=${formatSocketAddress(held.address)}`)
    }
    return texts
  }

  /** Starts the starters, which run all later smtpds under the smtpd's account. */
  async startStarters(ids: Ids): Promise<Starters> {
    this.#starters = await Starters.start({
      ids,
      engine: this.#engine,
      log: this.#setup.log,
      openFiles: () => this.#openFiles,
    })
    return this.#starters
  }

  #gateOptions(setup: GateSetup): ResidentGateOptions {
    const starters = this.#starters
    const options = setup.gateOptions(this.#engine, this.#mailCounts, this.#faults)
    if (starters === undefined) return options
    return { ...options, programOf: (...program) => starters.program(...program) }
  }

  #gateForAll(): ResidentGate {
    if (this.#gate === undefined) {
      this.#gate = new ResidentGate(this.#gateOptions(this.#setup))
      this.#shareOpenFiles()
    }
    return this.#gate
  }

  async startCdb(): Promise<void> {
    this.#cdb = new CdbExport(this.#setup.cdbOptions())
    await this.#cdb.start()
  }

  /**
   * Applies new settings. Connections and smtpds go on. Throws UsageFault, and then nothing has
   * changed.
   */
  async use(next: GateSetup): Promise<void> {
    const old = this.#setup
    try {
      if (this.#gate !== undefined) this.#gate.reconfigure(this.#gateOptions(next))
    } catch (error) {
      await next.close()
      throw error
    }
    this.#setup = next
    this.#mailCounts.limit(next.settings.wrap)
    this.#cdb?.reconfigure(next.cdbOptions())
    if (this.#gate !== undefined) this.#shareOpenFiles()
    next.log.info('settings_reloaded', restartFields('wrap', this.#started, next.settings))
    await this.#cdb?.refresh()
    await old.close()
  }

  close(): void {
    for (const server of this.#servers) server.close()
    this.#gate?.close()
  }

  /** Closes everything after a failed start. */
  abandon(): void {
    this.close()
    this.#starters?.close()
  }

  async stop(): Promise<void> {
    this.close()
    await this.#cdb?.stop()
    await this.#gate?.drain(this.#setup.settings.wrap.drain_time * 1000)
    this.#starters?.close()
    await this.#setup.close()
  }

  /**
   * Sets the limit of open files. Without a limit of connections the number of descriptors is
   * unknown, so the hard limit is set.
   */
  #shareOpenFiles(): void {
    const { max_connections, max_service_connections, front } = this.#setup.settings.wrap
    const each = front ? 2 * this.#engine.twoWayDescriptors : 1
    const needed = max_connections * each + this.#servers.length * max_service_connections + OTHER_DESCRIPTORS
    this.#openFiles = shareOpenFilesLimit(max_connections > 0 ? needed : undefined)
  }
}

/** The accounts of a gate and of its smtpd. */
type GateAccounts = {
  /** The account for the gate. Undefined: it keeps its account. */
  readonly gate: Ids | undefined
  /** The account of the smtpd if it is another one. Starters run under it. */
  readonly smtpd: Ids | undefined
  /** Why the gate and the smtpd share an account. */
  readonly notSeparated?: string
}

/**
 * Returns the accounts, from the settings and the account that started the gate. Throws UsageFault
 * if the host lacks one of the accounts.
 */
function gateAccounts({ wrap }: Pick<Settings, 'wrap'>): GateAccounts {
  const { listen, smtpd_user } = wrap
  const runsSmtpd = listen.length > 0
  if (!isRoot()) {
    const gate = smtpd_user === '' ? undefined : idsOf(smtpd_user, 'wrap.smtpd_user')
    const notSeparated = 'wrap is not started as root: gate and smtpd are one user'
    return { gate, smtpd: undefined, ...(runsSmtpd ? { notSeparated } : {}) }
  }
  if (!runsSmtpd) return { gate: idsOf(wrap.user, 'wrap.user'), smtpd: undefined }
  if (smtpd_user === '')
    return { gate: undefined, smtpd: undefined, notSeparated: 'wrap.smtpd_user is empty: gate and smtpd are root' }
  const [gate, smtpd] = [idsOf(wrap.user, 'wrap.user'), idsOf(smtpd_user, 'wrap.smtpd_user')]
  if (gate.uid === smtpd.uid)
    return { gate, smtpd: undefined, notSeparated: 'wrap.user and wrap.smtpd_user are one account' }
  return { gate, smtpd }
}
