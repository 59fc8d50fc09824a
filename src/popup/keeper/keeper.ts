import { mkdirSync } from 'node:fs'
import { monotonicClock, systemClock } from '../../daemon/clock.ts'
import { watchDescriptors } from '../../daemon/descriptor-watch.ts'
import { UsageFault } from '../../daemon/exit-status.ts'
import { type HeldListener, holdListener } from '../../daemon/held-listener.ts'
import type { RunningDaemon } from '../../daemon/lifecycle.ts'
import { createLog } from '../../daemon/log.ts'
import { type Ids, idsOf, isRoot } from '../../daemon/privileges.ts'
import { loadSettingsFile, requireConfigured, type Settings } from '../../daemon/settings/settings.ts'
import { formatSocketAddress } from '../../daemon/socket-address.ts'
import { programBeside } from '../../daemon/worker-process.ts'
import { ownEnvironment } from '../../ucspi/environment.ts'
import { CustomerNetworks } from '../../wire/customer-networks.ts'
import { inheritable } from '../checkers/checker-environment.ts'
import { makeChecker, programQueue } from '../checkers/make-checker.ts'
import { loginRefusal } from '../login-refusal.ts'
import { Announcer } from './announcer.ts'
import { AuthdLink } from './authd-link.ts'
import { ChainRunner } from './chain-runner.ts'
import { FailureDelays } from './failure-delays.ts'
import { LoginIntervals } from './login-intervals.ts'
import { LoginProcesses } from './login-processes.ts'
import { loginSettings } from './login-settings.ts'
import { Logins, type LoginsParts } from './logins.ts'
import { MaildropWorkers } from './maildrop-workers.ts'

/**
 * Starts popup: the keeper is this process; it binds, checks and announces, and reads nothing from the network.
 * `program` is the path of popup itself.
 * @throws UsageFault, TemporaryFault: nothing is left half-started, for this process then ends.
 */
export async function startKeeper(settingsFile: string, program: string): Promise<RunningDaemon> {
  let { settings } = loadSettingsFile(settingsFile)
  requireConfigured(settings, settingsFile)
  const log = createLog('popup', { level: settings.top.log_level, byTurn: true })
  watchDescriptors(log)
  // Delays, intervals, allowances: a clock that is set must neither lock anybody out nor let anybody in.
  const clock = monotonicClock
  const { popup, top, grants } = settings
  const loginIds = isRoot() ? idsOf(popup.login_user, 'popup.login_user') : undefined
  if (loginIds?.uid === 0) throw new UsageFault('popup.login_user must not be root: name an account without rights')
  mkdirSync(top.run_dir, { recursive: true, mode: 0o755 })

  let customers = customersOf(settings)
  const delays = new FailureDelays(popup.fail_delays, clock, customers)
  const listeners = await holdAll(settings)
  const chainListeners = popup.checker === 'chain' ? await holdChainSockets(settings, loginIds) : []
  const judge = await makeJudge(settings, loginIds, chainListeners, log)
  const fixed = {
    ids: loginIds,
    directory: judge.type === 'checker' ? judge.workers.directory : top.run_dir,
    listeners: [...popup.listen.map(() => ({ proxy: false })), ...popup.proxy_listen.map(() => ({ proxy: true }))],
  }
  let forLogin = loginSettings(settings, fixed)
  const authd =
    settings.authd.socket === ''
      ? undefined
      : new AuthdLink(
          { path: settings.authd.socket, grantWait: popup.grant_wait, keepFor: grants.exp_time * 1000 },
          log,
          clock,
        )
  const announcer = new Announcer(authd, loginRefusal(settings), top.syslog, log)
  const intervals = new LoginIntervals(popup.login_delay * 1000, clock)
  const logins = new Logins({
    judge,
    delays,
    customers: () => customers,
    intervals,
    announcer,
    checkTimeout: popup.check_timeout * 1000,
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
      onGone: process => logins.gone(process),
    },
    log,
    clock,
  )
  await processes.start()
  if (loginIds === undefined) {
    log.warn('not_separated', { reason: 'popup is not started as root: login, keeper and pop3d are one user' })
  }
  return {
    ready: readyLine(settings, listeners),
    reload: () => {
      settings = loadSettingsFile(settingsFile).settings
      forLogin = loginSettings(settings, fixed)
      customers = customersOf(settings)
      delays.useCustomers(customers)
      announcer.useRefusal(loginRefusal(settings))
      processes.reload()
      log.info('reloaded', { path: settingsFile })
    },
    stop: async () => {
      for (const listener of [...listeners, ...chainListeners]) listener.release()
      await processes.stop(settings.popup.drain_time * 1000)
      if (judge.type === 'checker') {
        await judge.workers.stop()
        await judge.checker.close()
      }
      await announcer.close()
    },
  }
}

const customersOf = ({ grants }: Settings): CustomerNetworks => new CustomerNetworks(grants.nat64_prefixes)

async function holdAll({ popup }: Settings): Promise<HeldListener[]> {
  const held: HeldListener[] = []
  for (const address of popup.listen) held.push(await holdListener(address, 'popup.listen'))
  for (const address of popup.proxy_listen) held.push(await holdListener(address, 'popup.proxy_listen'))
  return held
}

/** One for each login process. The keeper alone connects there. */
async function holdChainSockets({ popup, top }: Settings, loginIds: Ids | undefined): Promise<HeldListener[]> {
  const directory = `${top.run_dir}/popup`
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  const access = { mode: 0o600, ...(loginIds === undefined ? {} : { uid: 0, gid: 0 }) }
  const indexes = Array.from({ length: popup.logins }, (_, index) => index)
  return Promise.all(
    indexes.map(index => holdListener({ type: 'unix', path: `${directory}/chain-${index}.sock` }, 'run_dir', access)),
  )
}

async function makeJudge(
  settings: Settings,
  loginIds: Ids | undefined,
  chainListeners: readonly HeldListener[],
  log: ReturnType<typeof createLog>,
): Promise<LoginsParts['judge']> {
  const { popup, pop3d, top } = settings
  const environment = inheritable(ownEnvironment())
  if (popup.checker === 'upstream') return { type: 'upstream' }
  if (popup.checker === 'checkpassword' || popup.checker === 'chain')
    requireCommand(popup.checkpassword, 'checkpassword')
  if (popup.checker === 'chain') {
    requireCommand(popup.chain, 'chain')
    const chains = new ChainRunner({
      checker: popup.checkpassword,
      program: popup.chain,
      environment,
      checkTimeout: popup.check_timeout * 1000,
      listeners: chainListeners,
      programs: programQueue(settings),
    })
    return { type: 'chain', chains }
  }
  const checker = await makeChecker(popup.checker, settings, environment, log)
  const workers = new MaildropWorkers(
    {
      runDir: top.run_dir,
      program: programBeside('pop3d'),
      loginIds,
      start: {
        logLevel: top.log_level,
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
      },
    },
    log,
    systemClock,
  )
  return { type: 'checker', checker, workers }
}

function requireCommand(words: readonly string[], setting: string): void {
  if (words.length === 0) {
    throw new UsageFault(`popup.${setting} must name a program and its arguments, e.g. ["/bin/checkpassword"]`)
  }
}

function readyLine({ popup }: Settings, listeners: readonly HeldListener[]): string {
  const bound = listeners.map(({ address }) => formatSocketAddress(address))
  const proxied = bound.slice(popup.listen.length)
  return [
    `listen=${bound.slice(0, popup.listen.length).join(',')}`,
    ...(proxied.length > 0 ? [`proxy_listen=${proxied.join(',')}`] : []),
  ].join(' ')
}
