import type { ChildProcess } from 'node:child_process'
import { constants } from 'node:os'
import { errorCodeOf, TemporaryFault } from '../../base/errors.ts'
import { runtimeOptions } from '../../base/inspector.ts'
import type { Log } from '../../base/log.ts'
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
  parseStarterNews,
  type StarterNews,
} from '../../wire/starter-link.ts'

/**
 * Both work, because a start holds its starter until the smtpd runs. One is enough to go on with:
 * after its start the gate has
 * no right to start a process of the smtpd's account.
 */
const STARTERS = 2
const READY_WITHIN_MS = 30_000
/**
 * A starter that leaves so many pings unanswered, one at a time, and says nothing else, is taken
 * for hung: within 15 s. A ping waits behind the starts that were sent before it, so a busy starter
 * on a busy host answers late.
 */
const [PING_EVERY_MS, MOST_MISSED_PINGS] = [4_000, 3]
/** Between two looks whether an smtpd of a starter that has ended still runs. */
const LOOK_EVERY_MS = 1_000

type Ending = Awaited<InetdChild['ended']>

export type StartersOptions = {
  /** The smtpd's account. */
  readonly ids: Ids
  /** Through which the clients' sockets go to the starters. */
  readonly engine: Engine
  readonly log: Log
  /** Soft limit of open files of the smtpds, asked for when it is needed. */
  readonly openFiles: () => number
  /** Path of the starter program. */
  readonly script?: string
}

type Program = { readonly file: string; readonly argv: readonly string[]; readonly environment: readonly Text[] }
type Text = string | Uint8Array

/** A connection for which an smtpd is to be started. */
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
 * Starts smtpds under their own account, through starter processes that were started while the gate
 * was root (src/wrap/starter, docs/WIRE.md).
 *
 * Each start goes to the starter with the fewest unconfirmed starts. When a starter ends or hangs,
 * the other one does all the
 * work: the starts that the lost one has not confirmed fail, so that their clients hear 421 and
 * come again; starts that were not
 * sent yet wait for the other starter; smtpds that run go on, and the gate looks for their ends
 * itself. Without a starter the
 * gate cannot serve: `failed` says so, and its supervisor starts it anew as root.
 */
export class Starters {
  /** Resolves, with the reason, when none is left. */
  readonly failed: Promise<string>
  readonly #options: StartersOptions
  readonly #fail: (reason: string) => void
  readonly #all = new Set<StarterProcess>()
  /** In order: those not sent yet. */
  readonly #waiting: Start[] = []
  /** Smtpds whose starter has ended. */
  readonly #orphans = new Map<number, (ending: Ending) => void>()
  #lastStart = 0
  #look: NodeJS.Timeout | undefined
  #isClosed = false

  private constructor(options: StartersOptions) {
    this.#options = options
    const { promise, resolve } = Promise.withResolvers<string>()
    this.failed = promise
    this.#fail = resolve
  }

  /** Starts them, as root. @throws TemporaryFault if one does not become ready. */
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

  /**
   * A program to be run again and again. `environment`: `NAME=value`, each; what every child has.
   */
  program(file: string, argv: readonly string[], environment: readonly Text[]): ConnectionProgram {
    const program: Program = { file, argv, environment }
    return { run: (...start) => this.#run(program, ...start) }
  }

  /** The starters end; smtpds that run go on. */
  close(): void {
    this.#isClosed = true
    clearInterval(this.#look)
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

  /** A start that cannot be sent now. */
  #wait(start: Start): void {
    if (this.#leastBusy === undefined) start.reject(new Error('no starter is left'))
    else this.#waiting.push(start)
  }

  /**
   * The one that has the fewest starts under way: the first of two that are equal, because its
   * memory is in the caches.
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
    // It has the account's right to do so; we have not.
    if (starter.pid !== undefined) next?.kill(starter.pid)
    for (const [pid, resolve] of starter.children) this.#orphans.set(pid, resolve)
    if (this.#orphans.size > 0) this.#look ??= setInterval(() => this.#lookAtOrphans(), LOOK_EVERY_MS)
    for (const start of starter.underWay.values()) start.reject(new Error(`the starter is lost: ${reason}`))
    if (next === undefined) {
      for (const start of this.#waiting.splice(0)) start.reject(new Error('no starter is left'))
      this.#fail('no starter of smtpds is left, and only root can start one: the gate ends to be started anew')
    } else this.#pump()
  }

  #lookAtOrphans(): void {
    for (const [pid, resolve] of this.#orphans) {
      if (runs(pid)) continue
      this.#orphans.delete(pid)
      resolve(undefined)
    }
    if (this.#orphans.size > 0) return
    clearInterval(this.#look)
    this.#look = undefined
  }
}

type StarterListener = {
  /** A start that was refused could be sent now. */
  room(): void
  closed(reason: string): void
}

/**
 * One starter as the gate sees it. What it says is parsed as hostile: it runs under an account that
 * strangers' mail passes through.
 */
class StarterProcess {
  /** Fulfilled when it runs under its account; rejects with TemporaryFault. */
  readonly ready: Promise<void>
  readonly underWay = new Map<number, Start>()
  readonly children = new Map<number, (ending: Ending) => void>()
  readonly #child: ChildProcess
  readonly #link: SocketChannel
  readonly #listener: StarterListener
  readonly #lines = new LineSplitter(MAX_STARTER_LINE)
  readonly #pings: NodeJS.Timeout
  #lastPing = 0
  /** The last ping before it said something. */
  #lastHeard = 0
  #program: Program | undefined
  #isReady: () => void = () => {}
  #isLost = false

  constructor(script: string, ids: Ids, engine: Engine, listener: StarterListener) {
    this.#listener = listener
    const { child, channel } = engine.startChild(
      {
        file: process.execPath,
        args: [...runtimeOptions(), script, `${ids.uid}:${ids.gid}`, engine.name],
        // No variable of ours goes along: among them may be secrets. Standard error is the smtpds'.
        environment: {},
      },
      {
        data: (octets, socket) => {
          socket?.close()
          this.#receive(octets)
        },
        end: () => this.#lose('it has ended'),
        closed: () => this.#lose('the link is broken'),
        room: () => listener.room(),
      },
    )
    this.#child = child
    this.#link = channel
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
    this.#pings = setInterval(() => this.#ping(), PING_EVERY_MS).unref()
  }

  #fail: (reason: string) => void = () => {}

  get pid(): number | undefined {
    return this.#child.pid
  }

  /** False, and nothing has happened, if it takes no start now. */
  start(start: Start, openFiles: () => number): boolean {
    const { n, socket, program, without, block } = start
    if (program !== this.#program) this.#use(program, openFiles())
    const line = formatStarterOrder({ type: 'start', n, without, octets: block.length })
    if (!this.#link.lend(socket, `${line}\n`, block)) return false
    this.underWay.set(n, start)
    return true
  }

  kill(pid: number): void {
    this.#link.write(`${formatStarterOrder({ type: 'kill', pid })}\n`)
  }

  close(): void {
    this.#lose('closed')
  }

  #use(program: Program, files: number): void {
    const block = formatStrings([program.file, ...program.argv, ...program.environment])
    const order = { type: 'program', args: program.argv.length, files, octets: block.length } as const
    this.#link.write(`${formatStarterOrder(order)}\n${block.toString('latin1')}`)
    this.#program = program
  }

  #ping(): void {
    if (this.#lastPing - this.#lastHeard >= MOST_MISSED_PINGS) this.#lose('it does not answer')
    else {
      this.#lastPing += 1
      this.#link.write(`${formatStarterOrder({ type: 'ping', n: this.#lastPing })}\n`)
    }
  }

  #receive(octets: Buffer): void {
    const { lines, overlong } = this.#lines.push(octets)
    for (const line of lines) {
      const news = parseStarterNews(line)
      if (this.#isLost) continue
      if (news === undefined || !this.#hear(news)) this.#lose('it said what no starter says')
      else this.#lastHeard = this.#lastPing
    }
    if (overlong > 0) this.#lose('it said what no starter says')
  }

  /** False if it could not honestly have said so. */
  #hear(news: StarterNews): boolean {
    switch (news.type) {
      case 'ready':
        this.#isReady()
        return true
      case 'pong':
        return news.n <= this.#lastPing
      case 'started':
        return this.#started(news.n, news.pid)
      case 'failed': {
        const start = this.underWay.get(news.n)
        this.underWay.delete(news.n)
        start?.reject(new Error(`cannot run ${start.program.file}: ${nameOfErrno(news.errno)}`))
        return start !== undefined
      }
      case 'ended': {
        const resolve = this.children.get(news.pid)
        this.children.delete(news.pid)
        resolve?.('status' in news ? { code: news.status } : { signal: nameOfSignal(news.signal) })
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
    clearInterval(this.#pings)
    this.#fail(reason)
    this.#link.destroy()
    this.#listener.closed(reason)
  }
}

/** The starter's file beside ours: built, or as source. */
const starterScript = (): string =>
  programBeside('smtpd-starter').replace(/\/smtpd-starter\/main\.ts$/, '/wrap/starter/main.ts')

/** Whether a process of another account runs: the kernel answers EPERM for one. */
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
