/** The gate's side of the starters, which run smtpds under their own account. */
import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { errorCodeOf, TemporaryFault } from '../../base/errors.ts'
import { runtimeOptions } from '../../base/inspector.ts'
import type { Log } from '../../base/log.ts'
import { isStoppedProcess, Pings } from '../../base/supervised-child.ts'
import type { Ids } from '../../process/privileges.ts'
import { programBeside } from '../../process/worker-process.ts'
import type { Engine, SocketChannel } from '../../sockets/engine.ts'
import type { OpenSocket } from '../../sockets/owned-descriptor.ts'
import type { ConnectionProgram, InetdChild } from '../../ucspi/inetd-child.ts'
import { LineSplitter } from '../../wire/lines.ts'
import {
  formatStarterOrder,
  formatStrings,
  MAX_STARTER_BLOCK,
  MAX_STARTER_LINE,
  parseStarterReply,
  type StarterReply,
} from '../../wire/workers/starter.ts'

/**
 * Number of starters. There are two, because a start blocks its starter until the smtpd runs. If
 * one is lost, the other one continues alone: the gate has dropped root, so it cannot start
 * another.
 */
const STARTERS = 2
const READY_WITHIN_MS = 30_000
/** Time between two checks whether an smtpd of a lost starter still runs. */
const ORPHAN_CHECK_MS = 1_000

type Ending = Awaited<InetdChild['ended']>

export type StartersOptions = {
  /** The smtpd's account. */
  readonly ids: Ids
  /** Engine of the channels that carry the clients' sockets to the starters. */
  readonly engine: Engine
  readonly log: Log
  /** Returns the soft limit of open files for the smtpds. */
  readonly openFiles: () => number
  /** Path of the starter program. */
  readonly script?: string
}

type Program = { readonly file: string; readonly argv: readonly string[]; readonly environment: readonly Text[] }
type Text = string | Uint8Array

/** A connection for which an smtpd must be started. */
type Start = {
  readonly n: number
  readonly socket: OpenSocket
  readonly program: Program
  readonly without: number
  readonly block: Buffer
  readonly resolve: (child: InetdChild) => void
  readonly reject: (error: Error) => void
}

/**
 * Starts smtpds under their own account, through starter processes that the gate starts while it is
 * root (src/wrap/starter, docs/WIRE.md).
 *
 * Each start goes to the starter with the fewest unconfirmed starts. When a starter ends or hangs,
 * the other starter takes all starts. The unconfirmed starts of the ended starter fail: their
 * clients get 421 and try again. Starts that were not sent yet wait for the other starter. Running
 * smtpds go on, and the gate polls for their ends. Without a starter the gate cannot serve:
 * `failed` resolves, and the supervisor restarts the gate as root.
 */
export class Starters {
  /** Resolves with the reason when no starter is left. */
  readonly failed: Promise<string>
  readonly #options: StartersOptions
  readonly #fail: (reason: string) => void
  readonly #all = new Set<StarterProcess>()
  /** Starts that were not sent yet, in order. */
  readonly #waiting: Start[] = []
  /** Smtpds whose starter has ended. */
  readonly #orphans = new Map<number, (ending: Ending) => void>()
  #lastStart = 0
  #orphanCheck: NodeJS.Timeout | undefined
  #isClosed = false

  private constructor(options: StartersOptions) {
    this.#options = options
    const { promise, resolve } = Promise.withResolvers<string>()
    this.failed = promise
    this.#fail = resolve
  }

  /** Starts the starters, as root. @throws TemporaryFault if one does not become ready. */
  static async start(options: StartersOptions): Promise<Starters> {
    const starters = new Starters(options)
    const { ids, engine, script = starterScript() } = options
    try {
      for (let count = 0; count < STARTERS; count += 1) {
        const starter = new StarterProcess(script, ids, engine, {
          room: () => starters.#pump(),
          closed: reason => starters.#lost(starter, reason),
        })
        starters.#all.add(starter)
      }
      await Promise.all([...starters.#all].map(({ ready }) => ready))
      return starters
    } catch (error) {
      starters.close()
      throw error
    }
  }

  /** Makes a program that runs many times. `environment`: `NAME=value` strings of every child. */
  program(file: string, argv: readonly string[], environment: readonly Text[]): ConnectionProgram {
    const program: Program = { file, argv, environment }
    return { run: (...start) => this.#run(program, ...start) }
  }

  /** Ends the starters. Running smtpds go on. */
  close(): void {
    this.#isClosed = true
    clearInterval(this.#orphanCheck)
    for (const starter of this.#all) starter.close()
  }

  #run(
    program: Program,
    socket: OpenSocket,
    environment: readonly Text[],
    without: readonly string[] = [],
  ): Promise<InetdChild> {
    return new Promise((resolve, reject) => {
      this.#lastStart += 1
      const block = formatStrings(without.length === 0 ? environment : [...without, ...environment])
      if (block.length > MAX_STARTER_BLOCK / 8) throw new RangeError('the environment of the smtpd is too large')
      const start = { n: this.#lastStart, socket, program, without: without.length, block, resolve, reject }
      if (this.#waiting.length > 0 || this.#leastBusy?.start(start, this.#options.openFiles) !== true) this.#wait(start)
    })
  }

  /** Queues a start that cannot be sent now. */
  #wait(start: Start): void {
    if (this.#leastBusy === undefined) start.reject(new Error('no starter is left'))
    else this.#waiting.push(start)
  }

  /**
   * The starter with the fewest pending starts. Among equals the first one is chosen, because its
   * memory is in the processor's caches.
   */
  get #leastBusy(): StarterProcess | undefined {
    let least: StarterProcess | undefined
    for (const starter of this.#all)
      if (least === undefined || starter.underWay.size < least.underWay.size) least = starter
    return least
  }

  #pump(): void {
    for (let next = this.#waiting[0]; next !== undefined; next = this.#waiting[0]) {
      if (this.#leastBusy?.start(next, this.#options.openFiles) !== true) return
      this.#waiting.shift()
    }
  }

  #lost(starter: StarterProcess, reason: string): void {
    this.#all.delete(starter)
    if (this.#isClosed) return
    const next = this.#leastBusy
    this.#options.log.error('starter_lost', { pid: starter.pid, reason, left: this.#all.size })
    // Only a process of the smtpd's account may send the signal, so the other starter sends it.
    if (starter.pid !== undefined) next?.kill(starter.pid)
    for (const [pid, resolve] of starter.children) this.#orphans.set(pid, resolve)
    if (this.#orphans.size > 0) this.#orphanCheck ??= setInterval(() => this.#checkOrphans(), ORPHAN_CHECK_MS)
    for (const start of starter.underWay.values()) start.reject(new Error(`the starter is lost: ${reason}`))
    if (next === undefined) {
      for (const start of this.#waiting.splice(0)) start.reject(new Error('no starter is left'))
      this.#fail(
        'no starter of smtpds is left, and only root can start one: the gate ends so that its supervisor restarts it',
      )
    } else this.#pump()
  }

  #checkOrphans(): void {
    for (const [pid, resolve] of this.#orphans) {
      if (runs(pid)) continue
      this.#orphans.delete(pid)
      resolve(undefined)
    }
    if (this.#orphans.size > 0) return
    clearInterval(this.#orphanCheck)
    this.#orphanCheck = undefined
  }
}

type StarterListener = {
  /** A start that was not accepted can be sent now. */
  room(): void
  closed(reason: string): void
}

/**
 * A starter process. Its messages are checked like hostile input, because it runs under the account
 * that processes mail from the network.
 */
class StarterProcess {
  /** Settles when the starter runs under its account. Rejects with TemporaryFault. */
  readonly ready: Promise<void>
  readonly underWay = new Map<number, Start>()
  readonly children = new Map<number, (ending: Ending) => void>()
  readonly #child: ChildProcess
  readonly #channel: SocketChannel
  readonly #listener: StarterListener
  readonly #lines = new LineSplitter(MAX_STARTER_LINE)
  /**
   * Each message of the starter counts as an answer, because a ping waits behind earlier starts.
   */
  readonly #pings: Pings
  #lastPing = 0
  #program: Program | undefined
  #isReady: () => void = () => {}
  #isLost = false

  constructor(script: string, ids: Ids, engine: Engine, listener: StarterListener) {
    this.#listener = listener
    const { child, channel } = engine.startChild(
      {
        file: process.execPath,
        args: [...runtimeOptions(), script, `${ids.uid}:${ids.gid}`, engine.name],
        // The starter gets none of the gate's variables, because some are secrets. Its standard
        // error is that of the smtpds.
        environment: {},
      },
      {
        data: (octets, socket) => {
          socket?.close()
          this.#receive(octets)
        },
        end: () => this.#lose('it has ended'),
        closed: () => this.#lose('its channel was closed'),
        room: () => listener.room(),
      },
    )
    this.#child = child
    this.#channel = channel
    this.#child.on('error', error => this.#lose(error.message))
    this.ready = new Promise((resolve, reject) => {
      const late = setTimeout(() => this.#lose('it is not ready in time'), READY_WITHIN_MS)
      this.#isReady = () => {
        clearTimeout(late)
        resolve()
      }
      this.#fail = reason => {
        clearTimeout(late)
        reject(new TemporaryFault(`the starter of the smtpd cannot work: ${reason}: see the lines above`))
      }
    })
    this.ready.catch(() => {})
    this.#pings = new Pings(
      () => this.#ping(),
      () => this.#lose('it does not answer'),
      () => isStoppedProcess(this.#child.pid),
    )
  }

  #fail: (reason: string) => void = () => {}

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** Returns false, without an effect, if the starter accepts no start now. */
  start(start: Start, openFiles: () => number): boolean {
    const { n, socket, program, without, block } = start
    if (program !== this.#program) this.#use(program, openFiles())
    const line = formatStarterOrder({ type: 'start', n, without, octets: block.length })
    if (!this.#channel.lend(socket, `${line}\n`, block)) return false
    this.underWay.set(n, start)
    return true
  }

  kill(pid: number): void {
    this.#channel.write(`${formatStarterOrder({ type: 'kill', pid })}\n`)
  }

  close(): void {
    this.#lose('closed')
  }

  #use(program: Program, files: number): void {
    const block = formatStrings([program.file, ...program.argv, ...program.environment])
    const order = { type: 'program', args: program.argv.length, files, octets: block.length } as const
    this.#channel.write(`${formatStarterOrder(order)}\n${block.toString('latin1')}`)
    this.#program = program
  }

  #ping(): void {
    this.#lastPing += 1
    this.#channel.write(`${formatStarterOrder({ type: 'ping', n: this.#lastPing })}\n`)
  }

  #receive(octets: Buffer): void {
    const { lines, overlong } = this.#lines.push(octets)
    for (const line of lines) {
      const reply = parseStarterReply(line)
      if (this.#isLost) continue
      if (reply === undefined || !this.#handle(reply)) this.#lose('it sent an invalid message')
      else this.#pings.alive()
    }
    if (overlong > 0) this.#lose('it sent an invalid message')
  }

  /** Returns false if a correct starter cannot have sent the message. */
  #handle(reply: StarterReply): boolean {
    switch (reply.type) {
      case 'ready':
        this.#isReady()
        return true
      case 'pong':
        return reply.n <= this.#lastPing
      case 'started':
        return this.#started(reply.n, reply.pid)
      case 'failed': {
        const start = this.underWay.get(reply.n)
        this.underWay.delete(reply.n)
        start?.reject(new Error(`cannot run ${start.program.file}: ${nameOfErrno(reply.errno)}`))
        return start !== undefined
      }
      case 'ended': {
        const resolve = this.children.get(reply.pid)
        this.children.delete(reply.pid)
        resolve?.('status' in reply ? { code: reply.status } : { signal: nameOfSignal(reply.signal) })
        return resolve !== undefined
      }
    }
  }

  #started(n: number, pid: number): boolean {
    const start = this.underWay.get(n)
    if (start === undefined || this.children.has(pid)) return false
    this.underWay.delete(n)
    start.socket.close()
    const ended = new Promise<Ending>(resolve => this.children.set(pid, resolve))
    start.resolve({ pid, ended })
    return true
  }

  #lose(reason: string): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#pings.end()
    this.#fail(reason)
    this.#channel.destroy()
    this.#listener.closed(reason)
  }
}

/** Path of the starter's script beside this one, built or as source. */
const starterScript = (): string =>
  programBeside('smtpd-starter').replace(/\/smtpd-starter\/main\.ts$/, '/wrap/starter/main.ts')

/** True if the process runs. For a process of another account the kernel answers EPERM. */
function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0)
  } catch (error) {
    return errorCodeOf(error) === 'EPERM'
  }
}

const nameOf = (names: Readonly<Record<string, number>>, number: number): string | undefined =>
  Object.entries(names).find(([, each]) => each === number)?.[0]

const nameOfErrno = (errno: number): string => nameOf(constants.errno, errno) ?? `errno ${errno}`

const isSignal = (name: string | undefined): name is NodeJS.Signals => name !== undefined && name in constants.signals

function nameOfSignal(number: number): NodeJS.Signals | number {
  const name = nameOf({ ...constants.signals }, number)
  return isSignal(name) ? name : number
}
