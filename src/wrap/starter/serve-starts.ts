import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { EXIT } from '../../base/exit-status.ts'
import { dropPrivileges, forbidInspection, type Ids } from '../../process/privileges.ts'
import { DescriptorChannel } from '../../sockets/descriptor-channel.ts'
import { InetdProgram } from '../../ucspi/inetd-child.ts'
import { limitOpenFiles } from '../../ucspi/share-open-files.ts'
import {
  formatStarterNews,
  MAX_STARTER_BLOCK,
  MAX_STARTER_LINE,
  parseStarterOrder,
  parseStrings,
  type StarterNews,
  type StarterOrder,
} from '../../wire/starter-link.ts'

const LF = 0x0a
const NOTHING: Buffer = Buffer.alloc(0)

/** Ends the process. */
type Exit = (status: number) => never

/**
 * Starts smtpds for the gate, under the smtpd's account, until the gate closes the link; smtpds that run then go on. Holds no secret, has no database and reads
 * nothing of the clients whose sockets pass through. The account is taken here, after the process has become undumpable: at no time can another process of the account
 * trace this one.
 */
export function serveStarts(descriptor: number, ids: Ids, exit: Exit): void {
  forbidInspection()
  // A terminal's Ctrl-C and a signal to every process of the account are not for us: the gate says when to end.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  dropPrivileges(ids)
  new Starter(descriptor, exit)
}

class Starter {
  readonly #exit: Exit
  readonly #link: DescriptorChannel
  /** Those whose `start` is not there yet, in order; null for one that this process had no room for. */
  readonly #descriptors: (number | null)[] = []
  #pending: Buffer = NOTHING
  #news = ''
  #program: InetdProgram | undefined

  constructor(descriptor: number, exit: Exit) {
    this.#exit = exit
    this.#link = new DescriptorChannel(descriptor, {
      data: (octets, passed) => {
        if (passed !== undefined) this.#descriptors.push(passed)
        this.#receive(octets)
      },
      end: () => exit(EXIT.done),
      closed: () => exit(EXIT.done),
    })
    this.#say({ type: 'ready' })
  }

  #receive(octets: Buffer): void {
    let rest = this.#pending.length === 0 ? octets : Buffer.concat([this.#pending, octets])
    for (let end = rest.indexOf(LF); end >= 0; end = rest.indexOf(LF)) {
      const order = end > MAX_STARTER_LINE ? undefined : parseStarterOrder(rest.toString('latin1', 0, end))
      if (order === undefined) this.#refuse()
      const begin = end + 1
      const blockEnd = begin + ('octets' in order ? order.octets : 0)
      if (rest.length < blockEnd) break
      this.#obey(order, rest.subarray(begin, blockEnd))
      rest = rest.subarray(blockEnd)
    }
    if (rest.length > MAX_STARTER_LINE + MAX_STARTER_BLOCK) this.#refuse()
    else this.#pending = rest
  }

  #obey(order: StarterOrder, block: Buffer): void {
    const strings = parseStrings(block)
    if (strings === undefined) this.#refuse()
    switch (order.type) {
      case 'program': {
        const [file, ...others] = strings
        if (file === undefined || others.length < order.args) this.#refuse()
        limitOpenFiles(order.files)
        const environment = others.slice(order.args).map(copyOf)
        this.#program = new InetdProgram(file.toString(), others.slice(0, order.args).map(copyOf), environment)
        return
      }
      case 'start':
        this.#start(order.n, strings.slice(order.without), strings.slice(0, order.without))
        return
      case 'kill':
        kill(order.pid)
        return
      case 'ping':
        this.#say({ type: 'pong', n: order.n })
    }
  }

  #start(n: number, environment: readonly Buffer[], without: readonly Buffer[]): void {
    const descriptor = this.#descriptors.shift()
    if (descriptor === undefined || this.#program === undefined) this.#refuse()
    if (descriptor === null) {
      this.#say({ type: 'failed', n, errno: constants.errno.EMFILE })
      return
    }
    const names = without.map(name => name.toString('latin1'))
    this.#program.run(descriptor, environment, names).then(
      ({ pid, ended }) => {
        this.#say({ type: 'started', n, pid })
        void ended.then(ending => {
          if (ending === undefined) return
          if ('code' in ending) this.#say({ type: 'ended', pid, status: ending.code })
          else this.#say({ type: 'ended', pid, signal: numberOf(ending.signal) })
        })
      },
      (error: unknown) => {
        closeSync(descriptor)
        const errno = error instanceof Error && 'errno' in error ? Number(error.errno) : constants.errno.EINVAL
        this.#say({ type: 'failed', n, errno })
      },
    )
  }

  /** What one turn of the event loop has to say goes out together. */
  #say(news: StarterNews): void {
    if (this.#news === '') setImmediate(this.#flush)
    this.#news += `${formatStarterNews(news)}\n`
  }

  readonly #flush = (): void => {
    const news = this.#news
    this.#news = ''
    this.#link.write(news)
  }

  /** The gate says what no gate says: it starts another of us, or none. */
  #refuse(): never {
    process.stderr.write('smtpd-starter: what came through the link is no order of a gate\n')
    return this.#exit(EXIT.temporary)
  }
}

/** The octets without the message they came in, which would be kept as long. */
const copyOf = (octets: Buffer): Buffer => Buffer.from(octets)

const numberOf = (signal: NodeJS.Signals | number): number =>
  typeof signal === 'number' ? signal : constants.signals[signal]

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch {
    // ESRCH: it has ended meanwhile.
  }
}
