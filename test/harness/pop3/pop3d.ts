import { createHmac, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chownSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { createLog } from '../../../src/base/log.ts'
import { HandoffSender } from '../../../src/popup/login/handoff-sender.ts'
import { type BoundSocket, holdListener } from '../../../src/process/listener.ts'
import { startWorker, type WorkerProcess } from '../../../src/process/worker-process.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { parseIpAddress } from '../../../src/wire/ip-address.ts'
import { sessionId } from '../../../src/wire/login-event.ts'
import {
  formatSessionTicket,
  type MaildropWorkerSettings,
  type MaildropWorkerStart,
  type SessionTicket,
} from '../../../src/wire/workers/maildrop-worker.ts'
import { acceptedSocket } from '../processes/accepted-socket.ts'
import { ENGINE_SETTINGS } from '../processes/engines.ts'
import { isRoot, OWNER } from './maildir.ts'
import type { TranscriptSettings } from './transcript.ts'

/** The Node.js of the package, and pop3d as it is installed. */
export const NODE = process.execPath
export const PROGRAM = new URL('../../../dist/pop3d.js', import.meta.url).pathname

/** Two ends of a TCP connection on loopback; nothing has been read from either. */
export async function socketPair(): Promise<{ client: Socket; server: Socket }> {
  const listener = createServer({ pauseOnConnect: true, allowHalfOpen: true }).listen(0, '127.0.0.1')
  await once(listener, 'listening')
  const address = listener.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  const client = connect({ port: address.port, host: '127.0.0.1', allowHalfOpen: true })
  const [server] = await once(listener, 'connection')
  listener.close()
  return { client, server }
}

/** Options of a worker; other values have defaults. */
export type WorkerOptions = Partial<
  Pick<MaildropWorkerStart, 'ids' | 'key' | 'loginUid' | 'usedTickets' | 'logLevel' | 'engine'> & MaildropWorkerSettings
>

/** A pop3d worker with the monitor's side in the test: its socket, and its tickets. */
export class WorkerForTests {
  readonly worker: WorkerProcess
  readonly socket: string
  readonly #listener: BoundSocket
  readonly #key: Buffer
  #sessions = 0

  private constructor(worker: WorkerProcess, listener: BoundSocket, socket: string, key: Buffer) {
    this.worker = worker
    this.#listener = listener
    this.socket = socket
    this.#key = key
  }

  static async start(directory: string, options: WorkerOptions = {}): Promise<WorkerForTests> {
    const socket = `${directory}/${randomBytes(4).toString('hex')}.sock`
    const listener = await holdListener({ kind: 'unix', path: socket }, 'run_dir')
    if (isRoot) chownSync(socket, OWNER.uid, OWNER.gid)
    const { key: givenKey, ids = isRoot ? OWNER : null, loginUid = null, usedTickets = [], ...others } = options
    const { logLevel = 'error', engine = ENGINE_SETTINGS.engine ?? 'auto', ...settings } = others
    const key = givenKey === undefined ? randomBytes(32) : Buffer.from(givenKey, 'hex')
    const worker = startWorker(PROGRAM, ['--worker'], [listener.descriptor])
    worker.channel.send({
      type: 'start',
      ids,
      key: key.toString('hex'),
      loginUid,
      usedTickets,
      logLevel,
      engine,
      settings: {
        compat: 'none',
        sizes: 'wire',
        extraBlank: false,
        lock: 'none',
        idleTime: 1200,
        // A worker that a slow run does not use for minutes must not end.
        workerIdle: 86_400,
        capabilities: { user: true, sasl: [], loginDelay: 0, implementation: 'auth-relay' },
        ...settings,
      },
    } satisfies MaildropWorkerStart)
    return new WorkerForTests(worker, listener, socket, key)
  }

  /** The key of its tickets, in hexadecimal. */
  get key(): string {
    return this.#key.toString('hex')
  }

  ticket(changes: Partial<SessionTicket> & Pick<SessionTicket, 'maildir'>, key: Buffer = this.#key): string {
    const ip = parseIpAddress('192.0.2.7')
    if (ip === undefined) throw new Error('192.0.2.7 is an address')
    this.#sessions += 1
    const expires = Math.floor(Date.now() / 1000) + 30
    const ticket: SessionTicket = {
      id: sessionId(1, this.#sessions),
      user: 'ann',
      ip,
      tls: false,
      method: 'pass',
      expires,
      ...changes,
    }
    return formatSessionTicket(ticket, text => createHmac('sha256', key).update(text).digest('hex'))
  }

  /** Connects and sends a ticket, with the text `then` in the same write. */
  open(ticket: string, then = ''): Socket {
    const socket = connect({ path: this.socket, allowHalfOpen: true })
    socket.write(`${ticket}\n${then}`)
    return socket
  }

  /**
   * Ends the worker as the end of its monitor does. If sessions of a failed test still run after 5
   * s, kills the worker.
   */
  async stop(): Promise<void> {
    this.#listener.release()
    this.worker.channel.close()
    const timer = setTimeout(() => this.worker.child.kill('SIGKILL'), 5000)
    await this.worker.ended
    clearTimeout(timer)
  }
}

/** One worker for each combination of settings in the transcripts. */
export class WorkersForTests {
  readonly #directory: string
  readonly #options: WorkerOptions
  readonly #workers = new Map<string, Promise<WorkerForTests>>()
  readonly #senders = new Map<WorkerForTests, HandoffSender>()

  constructor(directory: string, options: WorkerOptions = {}) {
    this.#directory = directory
    this.#options = options
  }

  /** Relayed: the session runs over the worker's socket. */
  readonly connect = async (maildir: string, settings: TranscriptSettings) => {
    const worker = await this.workerFor(settings)
    return { socket: worker.open(worker.ticket({ maildir })), closed: Promise.resolve() }
  }

  /**
   * Handed over: the worker receives the client's own connection, as the login process passes it.
   */
  readonly handOver = async (maildir: string, settings: TranscriptSettings) => {
    const worker = await this.workerFor(settings)
    const { handover } = epollEngine
    if (handover === undefined) throw new Error('engine epoll hands connections over')
    const sender = this.#senders.get(worker) ?? new HandoffSender(handover, createLog('popup', { write: () => {} }))
    this.#senders.set(worker, sender)
    const channel = await sender.to(worker.socket)
    const { client, socket, close } = await acceptedSocket(epollEngine)
    const [over, clientClosed] = [Promise.withResolvers<void>(), once(client, 'close')]
    if (channel?.pass(socket.open(), worker.ticket({ maildir }), new Uint8Array(0), over.resolve) !== true)
      throw new Error('the connection was not handed over')
    return { socket: client, closed: Promise.all([over.promise, clientClosed]).then(close) }
  }

  workerFor({ compat, sizes, extraBlank }: TranscriptSettings): Promise<WorkerForTests> {
    const key = `${compat} ${sizes} ${extraBlank}`
    const options = { ...this.#options, compat, extraBlank, sizes }
    const started = this.#workers.get(key) ?? WorkerForTests.start(this.#directory, options)
    this.#workers.set(key, started)
    return started
  }

  async stop(): Promise<void> {
    for (const started of this.#workers.values()) await (await started).stop()
  }
}
