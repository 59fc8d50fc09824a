import { connect, type Socket } from 'node:net'
import type { ClientSocket } from '../../daemon/client-socket.ts'
import type { Log } from '../../daemon/log.ts'
import { giveSocket } from '../../daemon/passed-socket.ts'
import { LineSplitter } from '../../wire/line-splitter.ts'
import { formatTake, LINK_LINE, MAX_READ_AHEAD, PASSING_SUFFIX, parseLinkNews } from '../../wire/maildrop-link.ts'

/** Lines of a worker are short. */
const MAX_NEWS_LINE = 64

/** Octets that a worker has not read yet, above which clients are relayed instead. */
const HIGH_WATER = 262_144

/** The links of this login process to pop3d workers, by the name of the worker's socket. One is made when it is first needed. */
export class MaildropLinks {
  readonly #links = new Map<string, MaildropLink>()
  readonly #log: Log

  constructor(log: Log) {
    this.#log = log
  }

  /** The link, as soon as it stands; undefined if there is none to be had. */
  to(path: string): MaildropLink | undefined | Promise<MaildropLink | undefined> {
    const known = this.#links.get(path)
    if (known !== undefined) return known.isOpen ? known : known.opened
    const link = new MaildropLink(path, this.#log, () => {
      if (this.#links.get(path) === link) this.#links.delete(path)
    })
    this.#links.set(path, link)
    return link.opened
  }
}

/** Passes clients' sockets to one worker (src/wire/maildrop-link.ts). */
export class MaildropLink {
  /** Fulfilled with the link when sockets can be passed, with undefined if that failed. */
  readonly opened: Promise<MaildropLink | undefined>
  readonly #passing: Socket
  readonly #log: Log
  readonly #retire: () => void
  readonly #sessions = new Map<number, () => void>()
  #lines: Socket | undefined
  #last = 0
  #isOpen = false

  /** `retire` is called when no more sockets can be passed. */
  constructor(path: string, log: Log, retire: () => void) {
    this.#log = log
    this.#retire = retire
    // First: when the worker hears of the link it must know this one.
    this.#passing = connect({ path: `${path}${PASSING_SUFFIX}` })
    this.opened = this.#open(path)
  }

  /** Sockets may be passed now. */
  get isOpen(): boolean {
    return this.#isOpen
  }

  /**
   * Passes a client's socket, and what was read of it that nobody has used; it is closed here. `ended` is called when the session is over. False,
   * and the socket is as it was, if it cannot be passed now.
   */
  pass(client: ClientSocket, ticket: string, readAhead: Uint8Array, ended: () => void): boolean {
    const lines = this.#lines
    if (!this.#isOpen || lines === undefined || lines.writableLength > HIGH_WATER) return false
    const octets = readAhead.length
    if (octets > MAX_READ_AHEAD || !giveSocket(this.#passing, client)) return false
    this.#last += 1
    const n = this.#last
    this.#sessions.set(n, ended)
    lines.cork()
    lines.write(`${formatTake({ n, octets, ticket })}\n`, 'latin1')
    if (octets > 0) lines.write(readAhead)
    lines.uncork()
    return true
  }

  async #open(path: string): Promise<MaildropLink | undefined> {
    if (!(await connected(this.#passing))) return this.#failed()
    this.#passing.on('error', () => {}) // the other connection's end tells
    this.#passing.pause()
    const lines = connect({ path, allowHalfOpen: true, noDelay: true })
    this.#lines = lines
    if (!(await connected(lines))) return this.#failed()
    const news = new LineSplitter(MAX_NEWS_LINE)
    lines.on('error', error => this.#log.debug('link_broken', { path, reason: error }))
    lines.on('data', (chunk: Buffer) => {
      for (const line of news.push(chunk).lines) this.#hear(line)
    })
    lines.on('end', () => lines.end())
    lines.on('close', () => this.#close())
    lines.write(`${LINK_LINE}\n`)
    this.#isOpen = true
    return this
  }

  #failed(): undefined {
    this.#passing.destroy()
    this.#lines?.destroy()
    this.#retire()
    return undefined
  }

  #hear(line: string): void {
    const news = parseLinkNews(line)
    if (news === undefined) this.#log.error('link_news_unknown', { line })
    else if (news.type === 'ended') this.#end(news.n)
    else {
      this.#isOpen = false
      this.#retire()
      // What was passed before is on its way, and its end is still told to us.
      this.#lines?.end()
    }
  }

  #end(n: number): void {
    const ended = this.#sessions.get(n)
    this.#sessions.delete(n)
    ended?.()
  }

  /** The worker is gone, and with it its sessions. */
  #close(): void {
    this.#isOpen = false
    this.#passing.destroy()
    this.#retire()
    for (const n of [...this.#sessions.keys()]) this.#end(n)
  }
}

function connected(socket: Socket): Promise<boolean> {
  return new Promise(resolve => {
    socket.once('connect', () => resolve(true))
    socket.once('error', () => resolve(false))
  })
}
