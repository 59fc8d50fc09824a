/**
 * The life of a program: start, readiness, reload, stop, signals, and the report of its faults to
 * the administrator, the service manager and `auth-relay up`.
 */
import { writeFileSync, writeSync } from 'node:fs'
import { EXIT, type Fault, formatFault, isAccessDenied, stackOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { createLog, type Log, printToStandardError } from '../base/log.ts'
import { notifySocket } from '../libc/sockets.ts'
import { forbidDumps, unblockSignal } from '../libc/this-process.ts'
import { formatMessage } from '../wire/workers/control-channel.ts'
import { parseReloadOrder, type ReloadOrder, type StartReport } from '../wire/workers/supervised-program.ts'
import { withInheritedFiles } from './inherited-files.ts'
import { unusedActivatedSockets } from './listener.ts'
import { isRoot } from './privileges.ts'
import { answerPings, CONTROL_DESCRIPTOR, isPinged, keepPingsToOurselves } from './worker-process.ts'

/** A daemon that has started. */
export type RunningDaemon = {
  /** Text of the ready line, e.g. `listen=127.0.0.1:1110`. */
  readonly ready: string
  /**
   * Reads settings, certificates and secrets again (SIGHUP).
   * @throws UsageFault if they are invalid. The old ones stay in force then.
   */
  reload?(): void | Promise<void>
  /** Logs its counts (SIGUSR1). Without this function the signal has no effect. */
  report?(): void
  /**
   * Stops accepting, lets sessions finish within the drain time, and releases everything (SIGTERM,
   * SIGINT).
   */
  stop(): void | Promise<void>
  /**
   * Resolves with the reason when the daemon cannot continue. It is stopped and exits, so that its
   * supervisor starts it again.
   */
  readonly failed?: Promise<string>
}

/**
 * Sets the name that ps, top and ss show. Without it they show "MainThread" for every program. The
 * kernel keeps 15 characters. Must run before forbidDumps, which closes the file to this account.
 */
export function nameProcess(name: string): void {
  try {
    writeFileSync('/proc/self/comm', name)
  } catch {
    // Without /proc the name stays as it is.
  }
}

/**
 * Starts a daemon and runs until SIGTERM or SIGINT. A second signal ends it at once. SIGHUP during
 * the start makes it reload after the start. Under
 * `auth-relay up` (AUTHRELAY_SUPERVISED=1) the end of standard input means that the supervisor has
 * ended.
 */
export async function runDaemon(program: string, start: () => Promise<RunningDaemon>): Promise<void> {
  nameProcess(program)
  const log = createLog(program)
  // Without root, forbidDumps also closes the process's own environment in /proc, which the start
  // reads. So it is called again after the start.
  if (isRoot()) forbidDumps()
  keepPingsToOurselves()
  // SIGHUP would end the process before its handler is installed, so a signal during the start is
  // remembered.
  let isReloadDue = false
  let hangUp = (): void => {
    isReloadDue = true
  }
  process.on('SIGHUP', () => hangUp())
  const daemon = await orExit(program, start, isPinged())
  forbidDumps()
  for (const address of unusedActivatedSockets()) {
    log.warn('socket_unused', {
      address,
      reason: 'no setting names this address: give both the same, or disable the socket unit',
    })
  }
  const { url } = await import('node:inspector')
  if (url() !== undefined) {
    log.warn('inspector_opened', {
      reason: 'every account of this host can run code in this process: start it without --inspect (NODE_OPTIONS)',
    })
  }
  let stopWatchdog = (): void => {}
  let stopping = false
  let reloading = Promise.resolve()
  const reload = (files: ReloadOrder['files']): void => {
    reloading = reloading
      .then(() => withInheritedFiles(files, async () => withRemedy(daemon)))
      .catch((error: unknown) => logReloadFaults(log, 'signal', error))
  }
  hangUp = () => reload({})
  if (daemon.report !== undefined) {
    process.on('SIGUSR1', () => daemon.report?.())
    unblockSignal('SIGUSR1')
  }
  const stopWith = (status: number): void => {
    if (stopping) process.exit(EXIT.temporary)
    stopping = true
    notify('STOPPING=1')
    stopWatchdog()
    void stopOrLog(daemon, log).then(done => process.exit(done ? status : EXIT.temporary))
  }
  const stop = (): void => stopWith(EXIT.done)
  void daemon.failed?.then(reason => {
    log.error('program_failed', { reason })
    if (!stopping) stopWith(EXIT.temporary)
  })
  process.on('SIGTERM', stop)
  process.on('SIGINT', stop)
  // The ready line is written last, because its reader may send a signal at once.
  printToStandardError(`${program} ready ${daemon.ready}\n`)
  if (isPinged()) reportStart({ type: 'ready', text: daemon.ready })
  stopWatchdog = announceReady()
  if (isReloadDue) reload({})
  if (process.env['AUTHRELAY_SUPERVISED'] === '1') {
    process.stdin.on('end', stop).on('error', stop).resume()
    answerPings(message => {
      const order = parseReloadOrder(message)
      if (order !== undefined) reload(order.files)
    })
  }
}

/**
 * Runs a command to its end; its faults become one clear line each and the exit status of their
 * kind.
 */
export async function runCommand(program: string, command: () => Promise<number>): Promise<void> {
  process.exitCode = await orExit(program, command)
}

/**
 * Runs an action. On a fault, writes its lines and exits with the status of the fault. `reports`:
 * the lines go to the supervisor, which prints them once.
 */
async function orExit<T>(program: string, action: () => Promise<T>, reports = false): Promise<T> {
  try {
    return await action()
  } catch (error) {
    const lines = faultsOf(error).map(formatFault)
    if (reports) reportStart({ type: 'faults', lines })
    else printToStandardError(lines.map(line => `${program}: ${line}\n`).join(''))
    process.exit(error instanceof UsageFault ? error.exitStatus : EXIT.temporary)
  }
}

/** Writes the report to the supervisor at once, because the program may end with this turn. */
function reportStart(report: StartReport): void {
  try {
    writeSync(CONTROL_DESCRIPTOR, formatMessage(report))
  } catch {
    // The supervisor has ended, and this program ends with it.
  }
}

/**
 * Reloads. If the changed account of the program cannot read a file, the fault names the remedy.
 */
async function withRemedy(daemon: RunningDaemon): Promise<void> {
  try {
    await daemon.reload?.()
  } catch (error) {
    if (!(error instanceof UsageFault) || !isAccessDenied(error.cause) || process.getuid?.() === 0) throw error
    const remedy = 'restart the program, or send SIGHUP to auth-relay up if that started it'
    throw new UsageFault(
      error.details.map(fault => ({ ...fault, remedy })),
      error,
    )
  }
}

/** Logs why a reload changed nothing, one event for each fault. */
export function logReloadFaults(log: Log, trigger: 'signal' | 'file', error: unknown): void {
  for (const fault of faultsOf(error)) log.error('reload_failed', { trigger, ...fieldsOf(fault) })
}

/** Stops the daemon. Returns false after a fault, which is logged. */
async function stopOrLog(daemon: RunningDaemon, log: Log): Promise<boolean> {
  try {
    await daemon.stop()
    return true
  } catch (error) {
    for (const fault of faultsOf(error)) log.error('stop_failed', fieldsOf(fault))
    return false
  }
}

const fieldsOf = ({ setting, fact, remedy }: Fault) => ({ setting, reason: fact, remedy })

/** The faults of the administrator or of the host. Only a fault of the program has a stack. */
const faultsOf = (error: unknown): readonly Fault[] =>
  error instanceof UsageFault || error instanceof TemporaryFault
    ? error.details
    : [{ fact: `internal error: ${stackOf(error)}` }]

/** Reports to systemd that the program is ready, and triggers its watchdog from the event loop. */
function announceReady(): () => void {
  notify('READY=1')
  const microseconds = Number(process.env['WATCHDOG_USEC'] ?? '0')
  const isOurs = (process.env['WATCHDOG_PID'] ?? String(process.pid)) === String(process.pid)
  if (!(microseconds > 0) || !isOurs) return () => {}
  const timer = setInterval(() => notify('WATCHDOG=1'), microseconds / 2000)
  return () => clearInterval(timer)
}

function notify(state: string): void {
  const path = process.env['NOTIFY_SOCKET']
  if (path === undefined || path === '') return
  try {
    notifySocket(path, state)
  } catch {
    // The service manager has ended. Serving mail does not need it.
  }
}
