/** The login processes as seen by the monitor: it restarts them, and limits their requests. */
import { dirname, join } from 'node:path'
import type { Clock } from '../../base/clock.ts'
import type { Log } from '../../base/log.ts'
import { SupervisedChild } from '../../base/supervised-child.ts'
import type { BoundSocket } from '../../process/listener.ts'
import { endingFields, programBeside, startWorker, type WorkerProcess } from '../../process/worker-process.ts'
import {
  type FromLogin,
  type LoginSettingsMessage,
  parseFromLogin,
  type ToLoginMessage,
} from '../../wire/workers/login-process.ts'

/**
 * Limits for the messages of one login process. A login needs two messages, so the limits are far
 * above every real rate, and far below a load that would block the monitor.
 */
const MESSAGES_PER_SECOND = 20_000
const MESSAGE_BURST = 40_000
/**
 * Limits for the octets of these messages. A login process that runs its own code stays below,
 * because it reads and writes the octets of its clients several times for each message.
 */
const OCTETS_PER_SECOND = 33_554_432
const OCTET_BURST = 67_108_864
/** Characters of answers that a login process has not read, above which it is killed. */
const MAX_UNSENT = 8_388_608

/** One login process, for the other parts of the monitor. */
export type LoginProcess = {
  readonly index: number
  send(message: ToLoginMessage): void
}

type LoginProcessesOptions = {
  readonly count: number
  /** Path of popup itself. */
  readonly program: string
  readonly listeners: readonly BoundSocket[]
  /**
   * Extra listening sockets, one for each process. The monitor connects to them for the connections
   * of chained programs.
   */
  readonly chainListeners: readonly BoundSocket[]
  readonly settings: () => LoginSettingsMessage
  readonly onMessage: (process: LoginProcess, message: FromLogin) => void
  /** All requests of the process are void. */
  readonly onEnded: (process: LoginProcess) => void
}

/** `ready`: rejects if the process ends before it is. */
type LoginRun = Pick<WorkerProcess, 'ended'> & {
  readonly worker: WorkerProcess
  readonly self: LoginProcess
  readonly ready: Promise<void>
}

/** The configuration of OpenSSL sends one session ticket after a full handshake. */
const openSslConfiguration = join(dirname(programBeside('sslwrap')), 'openssl.cnf')

/**
 * Starts the login processes and restarts them. A message that the code of a login process never
 * sends ends the process.
 */
export class LoginProcesses {
  readonly #options: LoginProcessesOptions
  readonly #log: Log
  readonly #clock: Clock
  /** By index. */
  readonly #children: readonly SupervisedChild<LoginRun>[]

  constructor(options: LoginProcessesOptions, log: Log, clock: Clock) {
    this.#options = options
    this.#log = log
    this.#clock = clock
    this.#children = Array.from({ length: options.count }, (_, index) => this.#child(index))
  }

  /** Fulfilled when every process has reported that it is ready; rejects if one ends before. */
  async start(): Promise<void> {
    await Promise.all(this.#children.map(child => child.start()?.ready))
  }

  /** Sends the settings again after a reload. */
  reload(): void {
    for (const { run } of this.#children) {
      run?.worker.channel.send({ type: 'settings', settings: this.#options.settings() })
    }
  }

  /** No new connections; sessions get `limit` milliseconds to end. */
  async stop(limit: number): Promise<void> {
    await Promise.all(
      this.#children.map(child =>
        child.stop(
          { after: 0, act: ({ worker }) => worker.channel.send({ type: 'drain' }) },
          { after: limit, act: ({ worker }) => worker.channel.close() },
        ),
      ),
    )
  }

  #child(index: number): SupervisedChild<LoginRun> {
    const child = new SupervisedChild<LoginRun>({
      launch: () => this.#launch(index),
      ended: (ending, { self }) => {
        this.#options.onEnded(self)
        if (child.isStopped) return
        this.#log.error('login_process_ended', endingFields(ending))
        child.restart()
      },
      clock: this.#clock,
    })
    return child
  }

  #launch(index: number): LoginRun {
    const { program, listeners, chainListeners } = this.#options
    const chain = chainListeners[index]
    const descriptors = [...listeners, ...(chain === undefined ? [] : [chain])].map(({ descriptor }) => descriptor)
    const worker = startWorker(program, ['--login'], descriptors, openSslConfiguration)
    const messages = new MessageAllowance(MESSAGES_PER_SECOND, MESSAGE_BURST, this.#clock)
    const octets = new MessageAllowance(OCTETS_PER_SECOND, OCTET_BURST, this.#clock)
    let isCondemned = false
    const condemn = (reason: string): void => {
      if (isCondemned) return
      isCondemned = true
      this.#log.error('login_process_killed', { pid: worker.child.pid, reason })
      worker.child.kill('SIGKILL')
      worker.channel.close()
    }
    const self: LoginProcess = {
      index,
      send: message => {
        worker.channel.send(message)
        if (worker.channel.unsent > MAX_UNSENT) condemn('it does not read its answers')
      },
    }
    const ready = Promise.withResolvers<void>()
    ready.promise.catch(() => {}) // a restart is not awaited
    worker.channel.onMessage((raw, length) => {
      if (isCondemned) return
      if (!messages.take() || !octets.take(length)) {
        condemn('it sent too many messages')
        return
      }
      const message = parseFromLogin(raw)
      if (message === undefined) condemn('it sent an invalid message')
      else if (message.type === 'ready') ready.resolve()
      else this.#options.onMessage(self, message)
    })
    worker.channel.send({ type: 'settings', settings: this.#options.settings() })
    void worker.ended.then(() =>
      ready.reject(new Error('a login process ended while it started: see its message above')),
    )
    return { worker, self, ready: ready.promise, ended: worker.ended }
  }
}

/**
 * A bucket of messages, or of their octets, that fills again with time: bounds what one login
 * process can make the monitor do.
 */
export class MessageAllowance {
  readonly #perSecond: number
  readonly #burst: number
  readonly #clock: Clock
  #left: number
  #at: number

  constructor(perSecond: number, burst: number, clock: Clock) {
    this.#perSecond = perSecond
    this.#burst = burst
    this.#clock = clock
    this.#left = burst
    this.#at = clock()
  }

  /** Takes `count` tokens; false if there are fewer. */
  take(count = 1): boolean {
    const now = this.#clock()
    this.#left = Math.min(this.#burst, this.#left + ((now - this.#at) / 1000) * this.#perSecond)
    this.#at = now
    if (this.#left < count) return false
    this.#left -= count
    return true
  }
}
