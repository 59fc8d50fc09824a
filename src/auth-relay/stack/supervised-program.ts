/**
 * One program of the stack as a child process: its start report, its restarts, its stop, and the
 * secrets in its environment.
 */

import { type ChildProcess, spawn } from 'node:child_process'
import { messageOf, TemporaryFault, UsageFault } from '../../base/errors.ts'
import { runtimeOptions } from '../../base/inspector.ts'
import type { Log } from '../../base/log.ts'
import { SupervisedChild, signalGroup } from '../../base/supervised-child.ts'
import { type ControlChannel, controlOf, watchedChannel } from '../../process/worker-process.ts'
import { parseStartReport, type ReloadOrder } from '../../wire/workers/supervised-program.ts'

/** One program of the stack: its file, arguments and environment. */
export type ProgramSpec = {
  /** The name in its log lines and in its ready line. */
  readonly name: string
  readonly script: string
  readonly args: readonly string[]
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds from the start to the ready line. */
  readonly readyWithin: number
  /** Milliseconds from SIGTERM to SIGKILL: longer than the drain time of the program. */
  readonly stopWithin: number
}

/** Number of fault lines of a program that are kept for the message about a failed start. */
const MAX_FAULTS = 20

/**
 * A child process in a separate process group, so that Ctrl-C reaches the supervisor alone.
 *
 * The child's standard input is a pipe without data: when the supervisor is killed, the pipe ends
 * and the program stops. Its standard error is the supervisor's, and the supervisor copies no line.
 * The control channel reports that the program is ready, or its faults.
 */
export class SupervisedProgram {
  readonly #spec: ProgramSpec
  readonly #log: Log
  readonly #supervised: SupervisedChild<ProgramRun>
  /** The first start has succeeded. */
  #isStarted = false

  constructor(spec: ProgramSpec, log: Log) {
    this.#spec = spec
    this.#log = log.with({ program: spec.name })
    this.#supervised = new SupervisedChild<ProgramRun>({
      launch: () => this.#launch(),
      ended: () => {
        if (!this.#isStarted || this.#supervised.isStopped) return
        this.#log.error('restart_scheduled', { in_ms: this.#supervised.restart() })
      },
    })
  }

  get name(): string {
    return this.#spec.name
  }

  /**
   * Starts the program and returns the text of its ready line. Afterwards it is started again after
   * each end. @throws the program's own fault if it ends before it is ready; no process of it is
   * left then.
   */
  async start(): Promise<string> {
    try {
      const text = await this.#supervised.start()?.ready
      this.#isStarted = true
      return text ?? ''
    } catch (error) {
      await this.stop()
      throw withName(this.name, error)
    }
  }

  /**
   * Sends the program the order to reload with these texts in place of its files. Does nothing if
   * the program is not running.
   */
  reload(files: ReloadOrder['files']): void {
    this.#supervised.run?.channel.send({ type: 'reload', files } satisfies ReloadOrder)
  }

  /** Sends SIGTERM, kills the program after a time, and leaves no process of its group. */
  async stop(): Promise<void> {
    await this.#supervised.stop(
      { after: 0, act: ({ child }) => child.kill('SIGTERM') },
      {
        after: this.#spec.stopWithin,
        act: ({ child }) => {
          this.#log.warn('program_killed', { after_ms: this.#spec.stopWithin })
          signalGroup(child.pid, 'SIGKILL')
        },
      },
    )
  }

  #launch(): ProgramRun {
    const { script, args, env, readyWithin } = this.#spec
    const child = spawn(process.execPath, [...runtimeOptions(), script, ...args], {
      stdio: ['pipe', 'ignore', 'inherit', 'pipe'],
      env: { ...env, AUTHRELAY_SUPERVISED: '1', AUTHRELAY_PINGED: '1' },
      detached: true,
    })
    const { channel } = watchedChannel(controlOf(child), child, () => {
      this.#log.error('program_hung', { pid: child.pid, reason: 'no answer to pings' })
      signalGroup(child.pid, 'SIGKILL')
    })
    let faults: readonly string[] = []
    let state: 'starting' | 'ready' | 'failed' = 'starting'
    const { promise: ready, resolve, reject } = Promise.withResolvers<string>()
    // The caller of `start` handles the fault of the first start.
    ready.catch(() => {})
    const fail = (fault: Error): void => {
      if (state !== 'starting') return
      state = 'failed'
      if (this.#isStarted && !this.#supervised.isStopped) {
        for (const reason of linesOf(fault)) this.#log.error('restart_failed', { reason })
        signalGroup(child.pid, 'SIGKILL')
      }
      reject(fault)
    }
    const deadline = setTimeout(() => {
      const seconds = readyWithin / 1000
      fail(new TemporaryFault(`was not ready within ${seconds} s: look at its last lines above, then start again`))
    }, readyWithin)
    const ended = new Promise<void>(resolveEnd => {
      child.once('error', error => {
        faults = [`cannot be started: ${error.message}`]
        resolveEnd()
      })
      // `close` and not `exit`, so that the last message on the control channel is read before the
      // end is handled.
      child.once('close', () => resolveEnd())
    }).then(() => {
      clearTimeout(deadline)
      if (state === 'ready' && !this.#supervised.isStopped) {
        this.#log.error('program_ended', { status: child.exitCode ?? undefined, signal: child.signalCode ?? undefined })
      }
      fail(faultOf(child, faults))
    })
    child.once('exit', () => {
      // A worker that outlives its parent keeps its ports.
      signalGroup(child.pid, 'SIGKILL')
    })
    // A program that ends at once breaks the pipe. The exit event reports the end anyway.
    child.stdin?.on('error', () => {})
    channel.onMessage(message => {
      const report = parseStartReport(message)
      if (state !== 'starting') return
      if (report?.type === 'ready') {
        clearTimeout(deadline)
        state = 'ready'
        resolve(report.text)
      } else if (report?.type === 'faults') faults = report.lines.slice(0, MAX_FAULTS)
    })
    return { child, channel, ready, ended }
  }
}

/** One run of a program. `ready`: the text of its ready line; rejects with the program's fault. */
type ProgramRun = {
  readonly child: ChildProcess
  readonly channel: ControlChannel
  readonly ready: Promise<string>
  readonly ended: Promise<void>
}

/** The fault of a program from its own report and its exit status. */
function faultOf(child: ChildProcess, faults: readonly string[]): Error {
  const how = child.exitCode === null ? `signal ${child.signalCode}` : `status ${child.exitCode}`
  const lines = faults.length > 0 ? faults : [`ended with ${how} before it was ready`]
  return child.exitCode === 100 ? new UsageFault(lines) : new TemporaryFault(lines.join('\n'))
}

const linesOf = (fault: unknown): readonly string[] => messageOf(fault).split('\n')

/** The fault of a program, with the name of the program in each line. */
function withName(name: string, fault: unknown): Error {
  const named = linesOf(fault).map(line => `${name}: ${line}`)
  return fault instanceof UsageFault ? new UsageFault(named, fault) : new TemporaryFault(named.join('\n'), fault)
}

type Environment = Readonly<Record<string, string | undefined>>

/** Variables for the supervisor of `up`, not for the programs of the stack. */
const OURS = [
  'NOTIFY_SOCKET',
  'WATCHDOG_USEC',
  'WATCHDOG_PID',
  'AUTHRELAY_SUPERVISED',
  'AUTHRELAY_PINGED',
  'LISTEN_FDS',
  'LISTEN_FDNAMES',
  'LISTEN_PID',
]

/** Variables with secrets, by the programs that need them. */
const SECRETS: Readonly<Record<string, readonly string[]>> = {
  DBPASS: ['authd', 'alerts'],
  WRAP_DBPASS: ['wrap'],
  STATUS_DBPASS: ['status-page'],
}

/**
 * The environment of a program of the stack: that of this process, without variables for other
 * programs.
 */
export function programEnvironment(program: string, environment: Environment): Environment {
  const hidden = new Set([...OURS, ...Object.keys(SECRETS).filter(name => SECRETS[name]?.includes(program) !== true)])
  return Object.fromEntries(
    Object.entries(environment).filter(([name, value]) => value !== undefined && !hidden.has(name)),
  )
}
