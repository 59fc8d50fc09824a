/**
 * A pop3d worker: the connections that it accepts, its settings, and an end that loses no client.
 */
import { createServer, type Socket } from 'node:net'
import { systemClock } from '../base/clock.ts'
import { stackOf, TemporaryFault, UsageFault } from '../base/errors.ts'
import { createLog, type Log } from '../base/log.ts'
import { capabilityLines, err } from '../pop3/reply.ts'
import { watchDescriptors } from '../process/connection-limits.ts'
import type { RunningDaemon } from '../process/lifecycle.ts'
import { openListener } from '../process/listener.ts'
import { dropPrivileges } from '../process/privileges.ts'
import { peerIsAllowed } from '../process/unix-sockets.ts'
import { type ControlChannel, channelToParent, FIRST_LISTENING_DESCRIPTOR } from '../process/worker-process.ts'
import type { Connection } from '../sockets/connection.ts'
import type { Engine } from '../sockets/engine.ts'
import { selectEngine } from '../sockets/select-engine.ts'
import { StreamConnection } from '../sockets/stream-connection.ts'
import { LineReader } from '../wire/lines.ts'
import {
  CHANNEL_LINE,
  MAX_SESSION_TICKET_LINE,
  type MaildropWorkerReport,
  type MaildropWorkerSettings,
  type MaildropWorkerStart,
  parseMaildropWorkerChange,
  parseMaildropWorkerStart,
  type SessionTicket,
} from '../wire/workers/maildrop-worker.ts'
import { HandoffReceiver, type ServeClient } from './handoff-receiver.ts'
import { MaildropService, type MaildropServiceOptions } from './serve-maildrop.ts'
import { TicketVerifier } from './ticket-verifier.ts'

/** Milliseconds in which the login process must present a ticket after it has connected. */
const TICKET_TIME_MS = 10_000

/** Milliseconds in which the monitor must send its first message. */
const START_TIME_MS = 10_000

/**
 * Runs as a worker of popup's monitor: many sessions of one owner in one process
 * (src/wire/workers/maildrop-worker.ts). The worker exits after its idle time without a session,
 * and after its last session if the monitor has exited or has sent the order to stop. The monitor
 * holds the listening socket, so connections wait there for the next worker.
 */
export async function startWorker(): Promise<RunningDaemon> {
  // SCHED_BATCH: the worker wakes less often and does more work for each wake-up.
  const channel = channelToParent({ batch: true })
  const start = await firstMessage(channel)
  if (start.ids !== null) dropPrivileges(start.ids)
  if (process.getuid?.() === 0 || process.geteuid?.() === 0) throw new UsageFault('pop3d serves no mail as uid 0')
  const log = createLog('pop3d', { level: start.logLevel, byTurn: true })
  watchDescriptors(log)
  const engine = selectEngine(start.engine, 'pop3d.engine', log)
  engine.logLimits(log)
  return new Worker(start, channel, engine, log).open()
}

class Worker {
  readonly #channel: ControlChannel
  readonly #log: Log
  readonly #ticketVerifier: TicketVerifier
  #service: MaildropService
  #settings: MaildropWorkerSettings
  readonly #server = createServer({ allowHalfOpen: true }, socket => this.#accept(socket))
  /** Undefined if the engine has no handoff. */
  readonly #handoffs: HandoffReceiver | undefined
  readonly #mayConnect: ReadonlySet<number>
  readonly #stopped = Promise.withResolvers<void>()
  #connections = 0
  #stopping = false
  #passingEnded = false
  #idleTimer: NodeJS.Timeout | undefined

  constructor(start: MaildropWorkerStart, channel: ControlChannel, { handover }: Engine, log: Log) {
    this.#channel = channel
    this.#log = log
    this.#ticketVerifier = new TicketVerifier(start.key, start.usedTickets)
    this.#mayConnect = new Set(start.loginUid === null ? [] : [start.loginUid])
    const serve: ServeClient = (client, ticket, readAhead) => {
      this.#begin()
      client.onceClosed(() => this.#discount())
      this.#admit(client, ticket, readAhead)
    }
    this.#handoffs = handover === undefined ? undefined : new HandoffReceiver(handover, serve)
    this.#settings = start.settings
    this.#service = new MaildropService(optionsOf(start.settings))
    channel.onMessage(message => this.#use(parseMaildropWorkerChange(message).settings))
  }

  async open(): Promise<RunningDaemon> {
    await openListener(this.#server, { kind: 'descriptor', fd: FIRST_LISTENING_DESCRIPTOR }, 'the worker’s socket')
    this.#channel.onClose(() => this.#stop('monitor has ended'))
    this.#send({ type: 'ready' })
    this.#armIdleTimer()
    void this.#stopped.promise.then(() => process.kill(process.pid, 'SIGTERM'))
    return {
      ready: `uid=${process.getuid?.()} pid=${process.pid}`,
      stop: () => {
        this.#stop('requested')
        return this.#stopped.promise
      },
    }
  }

  /** Uses new settings for new sessions. Running sessions keep their settings and maildrops. */
  #use(settings: MaildropWorkerSettings): void {
    const old = this.#settings
    this.#settings = settings
    if (JSON.stringify(optionsOf(old)) !== JSON.stringify(optionsOf(settings))) {
      this.#service = new MaildropService(optionsOf(settings))
    }
    if (old.workerIdle === settings.workerIdle || this.#connections > 0 || this.#stopping) return
    clearTimeout(this.#idleTimer)
    this.#armIdleTimer()
  }

  #stop(why: string): void {
    if (this.#stopping) return
    this.#stopping = true
    clearTimeout(this.#idleTimer)
    this.#log.debug('worker_stopped', { reason: why, sessions: this.#connections })
    this.#server.close()
    // Clients that the login process sent before it got the request are served too.
    void this.#closeHandoffs().then(() => {
      this.#passingEnded = true
      this.#endIfLast()
    })
  }

  #endIfLast(): void {
    if (!this.#passingEnded || this.#connections > 0) return
    this.#send({ type: 'usedTickets', tickets: [...this.#ticketVerifier.used(nowSeconds())] })
    this.#handoffs?.destroy()
    // Exit after the messages above are sent.
    setImmediate(() => this.#stopped.resolve())
  }

  #send(report: MaildropWorkerReport): void {
    this.#channel.send(report)
  }

  #armIdleTimer(): void {
    clearTimeout(this.#idleTimer)
    this.#idleTimer = setTimeout(() => void this.#retire(), this.#settings.workerIdle * 1000)
  }

  /**
   * Shuts the worker down when it is idle. The worker first asks the login process to stop handing
   * over clients. It then exits, unless a client arrived in between. The monitor starts the next
   * worker only after this one has exited.
   */
  async #retire(): Promise<void> {
    await this.#closeHandoffs()
    if (this.#stopping || this.#connections > 0) return
    if (this.#handoffs?.someOpen === true) this.#armIdleTimer()
    else this.#stop('idle')
  }

  async #closeHandoffs(): Promise<void> {
    await this.#handoffs?.closeWhenDone()
  }

  /** Counts a connection until it is closed. A worker with connections does not exit. */
  #begin(): void {
    this.#connections += 1
    clearTimeout(this.#idleTimer)
  }

  #discount(): void {
    this.#connections -= 1
    if (this.#connections > 0) return
    if (this.#stopping) this.#endIfLast()
    else this.#armIdleTimer()
  }

  #accept(socket: Socket): void {
    if (!peerIsAllowed(socket, this.#mayConnect)) {
      this.#log.error('peer_refused', { reason: 'neither login nor the owner' })
      socket.destroy()
      return
    }
    const discount = () => this.#discount()
    this.#begin()
    socket.once('close', discount)
    // The ticket is late, or the login process has exited, so there is no session to serve.
    const closeSocket = () => socket.destroy()
    socket.on('error', closeSocket)
    socket.setTimeout(TICKET_TIME_MS, closeSocket)
    const reader = new LineReader()
    socket.on('end', closeSocket)
    const receive = (chunk: Buffer) => {
      reader.push(chunk)
      const line = reader.next(MAX_SESSION_TICKET_LINE + 1)
      if (line === undefined) return
      socket.off('data', receive).off('end', closeSocket).off('timeout', closeSocket).setTimeout(0)
      // Pause until the session listens, because opening the maildrop may take time.
      socket.pause()
      if (line.kind === 'line' && line.text === CHANNEL_LINE) {
        // A handoff channel is not a session. A worker with channels only is idle.
        socket.off('close', discount)
        if (this.#handoffs === undefined || reader.rest().length > 0) socket.destroy()
        else this.#handoffs.open(socket)
        discount()
      } else this.#admit(new StreamConnection(socket, socket), line.kind === 'line' ? line.text : '', reader.rest())
    }
    socket.on('data', receive)
  }

  /** The connection is paused. */
  #admit(connection: Connection, line: string, readAhead: Uint8Array): void {
    const ticket = this.#ticketVerifier.check(line, nowSeconds())
    if (typeof ticket === 'string') this.#refuse(connection, ticket)
    else this.#serve(connection, ticket, readAhead)
  }

  #refuse(connection: Connection, reason: string): void {
    this.#log.error('ticket_refused', { reason })
    connection.end(
      err(this.#settings.compat === 'qmail' ? 'authorization failed' : '[SYS/TEMP] temporary authentication failure'),
    )
  }

  #serve(connection: Connection, { id, user, ip, maildir }: SessionTicket, readAhead: Uint8Array): void {
    const log = this.#log.with({ id, user, ip })
    const isCounted = this.#settings.capabilities.loginDelay > 0
    if (isCounted) this.#send({ type: 'sessionBegun', id })
    this.#service.serve(connection, maildir, readAhead, log).then(
      outcome => {
        if (isCounted && outcome === 'refused') this.#send({ type: 'sessionRefused', id })
      },
      (error: unknown) => {
        log.error('session_failed', { reason: stackOf(error) })
        connection.destroy()
      },
    )
  }
}

const nowSeconds = (): number => Math.floor(systemClock() / 1000)

function optionsOf(settings: MaildropWorkerSettings): MaildropServiceOptions {
  const { compat, sizes, extraBlank, lock, idleTime } = settings
  const capabilities = capabilityLines('TRANSACTION', { ...settings.capabilities, stls: false, expire: 'NEVER' })
  return { compat, sizes, extraBlank, lock, idleTime: idleTime * 1000, capabilities }
}

/**
 * The first message of the monitor. If a reload came while this process loaded, the settings are
 * those of the reload. The caller has to take later messages in the same turn of the event loop.
 */
async function firstMessage(channel: ControlChannel): Promise<MaildropWorkerStart> {
  const { promise, resolve, reject } = Promise.withResolvers<unknown>()
  let newest: unknown
  channel.onMessage(message => {
    newest = message
    resolve(message)
  })
  channel.onClose(() => reject(new TemporaryFault('pop3d --worker: there is no monitor; only popup starts a worker')))
  const silent = `pop3d --worker: the monitor sent no message within ${START_TIME_MS / 1000} s`
  const timer = setTimeout(() => reject(new TemporaryFault(silent)), START_TIME_MS)
  const message = await promise.finally(() => clearTimeout(timer))
  try {
    const start = parseMaildropWorkerStart(message)
    return newest === message ? start : { ...start, settings: parseMaildropWorkerChange(newest).settings }
  } catch (error) {
    throw new UsageFault('pop3d --worker: popup is of another version: restart popup', error)
  }
}
