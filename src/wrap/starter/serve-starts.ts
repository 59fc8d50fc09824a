/** The work of a starter: it starts smtpds on the sockets that the gate sends. */
import { constants } from 'node:os'
import { EXIT } from '../../base/errors.ts'
import { createLog } from '../../base/log.ts'
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
  // Ignore signals, such as Ctrl-C in a terminal: the gate ends a starter by closing the channel.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  dropPrivileges(ids)
  new Starter(engine, exit)
}

/**
 * Starts smtpds one after the other on its only thread. A start blocks the thread until the smtpd's
 * execve is done. A second starter uses a second processor.
 */
class Starter {
  readonly #exit: Exit
  readonly #engine: Engine
  readonly #channel: SocketChannel
  /**
   * Sockets whose `start` has not arrived yet, in order of arrival. Null: the process had no
   * descriptor left for the socket.
   */
  readonly #sockets: (OpenSocket | null)[] = []
  readonly #lines = new LineReader()
  /** The order whose block has not arrived in full. */
  #order: StarterOrder | undefined
  #replies = ''
  #program: InetdProgram | SpawnedProgram | undefined

  constructor(engine: Engine, exit: Exit) {
    this.#engine = engine
    this.#exit = exit
    this.#channel = engine.channelToParent({
      data: (octets, socket) => {
        if (socket !== undefined) this.#sockets.push(socket)
        this.#receive(octets)
      },
      end: () => exit(EXIT.done),
      closed: () => exit(EXIT.done),
    })
    // With the engine `node` the runtime starts the children, and reaps them itself.
    if (engine.name !== 'node') process.on('SIGCHLD', () => InetdProgram.reapStarted(this.#ended))
    this.#reply({ type: 'ready' })
  }

  #receive(octets: Buffer): void {
    this.#lines.push(octets)
    for (;;) {
      const order = this.#order ?? this.#next()
      if (order === undefined) break
      const block = this.#lines.takeOctets('octets' in order ? order.octets : 0)
      this.#order = block === undefined ? order : undefined
      if (block === undefined) break
      this.#execute(order, block)
    }
    if (this.#lines.pending.length > MAX_STARTER_BLOCK) this.#refuse()
  }

  #next(): StarterOrder | undefined {
    const line = this.#lines.take(MAX_STARTER_LINE + 1)
    if (line === 'tooLong' || this.#lines.isDiscarding) return this.#refuse()
    if (line === undefined) return undefined
    return parseStarterOrder(line.toString('latin1', 0, line.length - 1)) ?? this.#refuse()
  }

  #execute(order: StarterOrder, block: Buffer): void {
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
        this.#reply({ type: 'pong', n: order.n })
    }
  }

  #start(n: number, without: number, block: Buffer): void {
    const socket = this.#sockets.shift()
    if (socket === undefined || this.#program === undefined) this.#refuse()
    if (socket === null) {
      this.#reply({ type: 'failed', n, errno: constants.errno.EMFILE })
      return
    }
    if (this.#program instanceof SpawnedProgram) {
      this.#spawn(n, this.#program, socket, without, block)
      return
    }
    try {
      this.#reply({ type: 'started', n, pid: this.#program.startHere(socket.descriptor, block, without) })
    } catch (error) {
      this.#reply({ type: 'failed', n, errno: errnoOf(error) })
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
        this.#reply({ type: 'started', n, pid })
        void ended.then(ending => {
          if (ending !== undefined) this.#ended(pid, ending)
        })
      },
      (error: unknown) => {
        socket.close()
        this.#reply({ type: 'failed', n, errno: errnoOf(error) })
      },
    )
  }

  readonly #ended = (pid: number, ending: Ending): void => {
    if ('code' in ending) this.#reply({ type: 'ended', pid, status: ending.code })
    else this.#reply({ type: 'ended', pid, signal: numberOf(ending.signal) })
  }

  /** Sends the replies of one event loop turn in one write. */
  #reply(reply: StarterReply): void {
    if (this.#replies === '') setImmediate(this.#flush)
    this.#replies += `${formatStarterReply(reply)}\n`
  }

  readonly #flush = (): void => {
    const replies = this.#replies
    this.#replies = ''
    this.#channel.write(replies)
  }

  /**
   * Exits after a message that a gate cannot have sent. The gate then starts no further smtpd
   * through this process.
   */
  #refuse(): never {
    createLog('smtpd-starter').error('starter_order_invalid', { pid: process.pid })
    return this.#exit(EXIT.temporary)
  }
}

/** The system's error number of an error, which is negative in an error of the runtime. */
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
