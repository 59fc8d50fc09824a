import { constants } from 'node:os'
import { EXIT } from '../../base/errors.ts'
import { dropPrivileges, forbidInspection, type Ids } from '../../process/privileges.ts'
import type { Engine, SocketChannel } from '../../sockets/engine.ts'
import type { OpenSocket } from '../../sockets/owned-descriptor.ts'
import { type InetdChild, InetdProgram, SpawnedProgram } from '../../ucspi/inetd-child.ts'
import { limitOpenFiles } from '../../ucspi/run-next.ts'
import { LineReader } from '../../wire/lines.ts'
import {
  formatStarterReply,
  MAX_STARTER_BLOCK,
  MAX_STARTER_LINE,
  parseStarterOrder,
  parseStrings,
  type StarterOrder,
  type StarterReply,
} from '../../wire/workers/starter.ts'

type Ending = NonNullable<Awaited<InetdChild['ended']>>

/** Ends the process. */
type Exit = (status: number) => never

/**
 * Starts smtpds for the gate under the smtpd's account until the gate closes the channel. Running
 * smtpds then go on. The process has no secrets and no database, and does not read from the
 * clients' sockets. It becomes undumpable before it takes the account, so that no other process of
 * the account can trace it.
 */
export function serveStarts(engine: Engine, ids: Ids, exit: Exit): void {
  forbidInspection()
  // Ctrl-C in a terminal and signals to all processes of the account must not end a starter. The
  // gate ends it by closing the channel.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  dropPrivileges(ids)
  new Starter(engine, exit)
}

/**
 * Starts smtpds one after the other on its only thread. A start blocks the thread until the smtpd's
 * execve is done; meanwhile the starter has no other work. A second starter uses a second
 * processor.
 */
class Starter {
  readonly #exit: Exit
  readonly #engine: Engine
  readonly #channel: SocketChannel
  /**
   * Sockets whose `start` has not arrived yet, in order of arrival. Null stands for a socket that
   * the process had no descriptor for.
   */
  readonly #sockets: (OpenSocket | null)[] = []
  readonly #lines = new LineReader()
  /** The order whose block has not arrived in full. */
  #order: StarterOrder | undefined
  #news = ''
  #program: InetdProgram | SpawnedProgram | undefined

  constructor(engine: Engine, exit: Exit) {
    this.#engine = engine
    this.#exit = exit
    this.#channel = engine.channelToParent({
      data: (octets, passed) => {
        if (passed !== undefined) this.#sockets.push(passed)
        this.#receive(octets)
      },
      end: () => exit(EXIT.done),
      closed: () => exit(EXIT.done),
    })
    // The runtime must reap the children that it has started itself.
    if (engine.name !== 'node') process.on('SIGCHLD', () => InetdProgram.reapStarted(this.#ended))
    this.#say({ type: 'ready' })
  }

  #receive(octets: Buffer): void {
    this.#lines.push(octets)
    for (;;) {
      const order = this.#order ?? this.#next()
      if (order === undefined) break
      const block = this.#lines.takeOctets('octets' in order ? order.octets : 0)
      this.#order = block === undefined ? order : undefined
      if (block === undefined) break
      this.#obey(order, block)
    }
    if (this.#lines.pending.length > MAX_STARTER_BLOCK) this.#refuse()
  }

  #next(): StarterOrder | undefined {
    const line = this.#lines.take(MAX_STARTER_LINE + 1)
    if (line === 'tooLong' || this.#lines.isDiscarding) return this.#refuse()
    if (line === undefined) return undefined
    return parseStarterOrder(line.toString('latin1', 0, line.length - 1)) ?? this.#refuse()
  }

  #obey(order: StarterOrder, block: Buffer): void {
    // A block of strings ends with the NUL of its last string.
    if (block.length > 0 && block.at(-1) !== 0) this.#refuse()
    switch (order.type) {
      case 'program': {
        const [file, ...others] = parseStrings(block) ?? this.#refuse()
        if (file === undefined || others.length < order.args) this.#refuse()
        limitOpenFiles(order.files)
        const Program = this.#engine.name === 'node' ? SpawnedProgram : InetdProgram
        this.#program = new Program(file.toString(), others.slice(0, order.args), others.slice(order.args))
        return
      }
      case 'start':
        this.#start(order.n, order.without, block)
        return
      case 'kill':
        kill(order.pid)
        return
      case 'ping':
        this.#say({ type: 'pong', n: order.n })
    }
  }

  #start(n: number, without: number, block: Buffer): void {
    const socket = this.#sockets.shift()
    if (socket === undefined || this.#program === undefined) this.#refuse()
    if (socket === null) {
      this.#say({ type: 'failed', n, errno: constants.errno.EMFILE })
      return
    }
    if (this.#program instanceof SpawnedProgram) {
      this.#spawn(n, this.#program, socket, without, block)
      return
    }
    try {
      this.#say({ type: 'started', n, pid: this.#program.startHere(socket.descriptor, block, without) })
    } catch (error) {
      this.#say({ type: 'failed', n, errno: errnoOf(error) })
    } finally {
      socket.close()
    }
  }

  /** The runtime starts the smtpd in this loop turn, before it could read from the connection. */
  #spawn(n: number, program: SpawnedProgram, socket: OpenSocket, without: number, block: Buffer): void {
    const strings = parseStrings(block) ?? this.#refuse()
    const names = strings.slice(0, without).map(name => name.toString('latin1'))
    program.run(socket, strings.slice(without), names).then(
      ({ pid, ended }) => {
        this.#say({ type: 'started', n, pid })
        void ended.then(ending => {
          if (ending !== undefined) this.#ended(pid, ending)
        })
      },
      (error: unknown) => {
        socket.close()
        this.#say({ type: 'failed', n, errno: errnoOf(error) })
      },
    )
  }

  readonly #ended = (pid: number, ending: Ending): void => {
    if ('code' in ending) this.#say({ type: 'ended', pid, status: ending.code })
    else this.#say({ type: 'ended', pid, signal: numberOf(ending.signal) })
  }

  /** Sends the replies of one event loop turn in one write. */
  #say(news: StarterReply): void {
    if (this.#news === '') setImmediate(this.#flush)
    this.#news += `${formatStarterReply(news)}\n`
  }

  readonly #flush = (): void => {
    const news = this.#news
    this.#news = ''
    this.#channel.write(news)
  }

  /**
   * Exits after a message that a gate cannot have sent. The gate then starts no further smtpd
   * through this process.
   */
  #refuse(): never {
    process.stderr.write('smtpd-starter: received an invalid message of the gate\n')
    return this.#exit(EXIT.temporary)
  }
}

/** Returns the system's error number, which the runtime has as a negative number. */
const errnoOf = (error: unknown): number =>
  error instanceof Error && 'errno' in error ? Math.abs(Number(error.errno)) : constants.errno.EINVAL

const numberOf = (signal: NodeJS.Signals | number): number =>
  typeof signal === 'number' ? signal : constants.signals[signal]

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // ESRCH: the process has already ended.
  }
}
