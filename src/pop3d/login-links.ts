import { createServer, type Server, type Socket } from 'node:net'
import { ClientSocket } from '../daemon/client-socket.ts'
import { takeDescriptor } from '../daemon/passed-socket.ts'
import { allowedPeer } from '../daemon/unix-peer.ts'
import { formatLinkNews, MAX_READ_AHEAD, MAX_TAKE_LINE, parseTake } from '../wire/maildrop-link.ts'

/** Takes a client's socket whose session the ticket opens; `readAhead` is what it has sent already. */
export type TakeClient = (client: ClientSocket, ticket: string, readAhead: Uint8Array) => void

const LF = 0x0a
const NOTHING: Buffer = Buffer.alloc(0)

/**
 * The links to login processes, over which clients' sockets arrive (src/wire/maildrop-link.ts). A login process has two connections: the one with
 * the descriptors, which comes first, and the one with the lines; the kernel's word for the peer's process joins them.
 */
export class LoginLinks {
  /** Listens where the connections for descriptors come in. Node must not read from them. */
  readonly passing: Server
  readonly #links = new Set<Link>()
  readonly #passing = new Map<number, Socket>()
  readonly #take: TakeClient

  /** `uids` are the accounts that may pass sockets. */
  constructor(uids: ReadonlySet<number>, take: TakeClient) {
    this.#take = take
    this.passing = createServer({ pauseOnConnect: true }, socket => {
      const peer = allowedPeer(socket, uids)
      socket.on('error', () => {}) // it is never read: the link's own end says what there is to say
      if (peer === undefined) {
        socket.destroy()
        return
      }
      this.#passing.get(peer.pid)?.destroy()
      this.#passing.set(peer.pid, socket)
    })
  }

  /** Takes over a connection of process `pid` that began with LINK_LINE; `rest` is what came behind. */
  open(lines: Socket, pid: number, rest: Uint8Array): void {
    const passing = this.#passing.get(pid)
    if (passing === undefined) {
      lines.destroy()
      return
    }
    this.#passing.delete(pid)
    const link = new Link(lines, passing, this.#take)
    this.#links.add(link)
    lines.once('close', () => this.#links.delete(link))
    link.receive(Buffer.from(rest))
  }

  /** Whether a login process could pass a socket now. */
  get someOpen(): boolean {
    return [...this.#links].some(({ isOpen }) => isOpen)
  }

  /** Asks the login processes to pass no more on these links; fulfilled when all have ended their side. What they passed before is served. */
  async dismiss(): Promise<void> {
    const links = [...this.#links]
    for (const link of links) link.sayBye()
    await Promise.all(links.map(({ inputEnded }) => inputEnded))
  }

  /** Closes everything. */
  destroy(): void {
    for (const link of this.#links) link.destroy()
    for (const socket of this.#passing.values()) socket.destroy()
  }
}

/** One login process. Its sessions end with it, unless it said goodbye. */
class Link {
  readonly inputEnded: Promise<void>
  readonly #lines: Socket
  readonly #passing: Socket
  readonly #take: TakeClient
  readonly #clients = new Set<ClientSocket>()
  #pending: Buffer = NOTHING
  #news = ''
  #saidBye = false
  #inputEnds = false

  constructor(lines: Socket, passing: Socket, take: TakeClient) {
    this.#lines = lines
    this.#passing = passing
    this.#take = take
    this.inputEnded = new Promise(resolve => {
      lines.once('end', resolve).once('close', resolve)
    })
    lines.on('data', (chunk: Buffer) => this.receive(chunk))
    lines.on('end', () => {
      this.#inputEnds = true
      passing.destroy()
      if (this.#saidBye) this.#endIfOver()
      else lines.destroy()
    })
    lines.on('close', () => {
      passing.destroy()
      for (const client of this.#clients) client.destroy()
    })
    lines.resume()
  }

  get isOpen(): boolean {
    return !this.#inputEnds && !this.#lines.destroyed
  }

  receive(chunk: Buffer): void {
    const rest = this.#takeAll(this.#pending.length === 0 ? chunk : Buffer.concat([this.#pending, chunk]))
    if (rest === undefined || rest.length > MAX_TAKE_LINE + MAX_READ_AHEAD) this.destroy()
    else this.#pending = rest
  }

  /** What is left behind the last whole message; undefined if login does not keep to the rules. */
  #takeAll(octets: Buffer): Buffer | undefined {
    let rest = octets
    for (let end = rest.indexOf(LF); end >= 0; end = rest.indexOf(LF)) {
      const take = parseTake(rest.toString('latin1', 0, end))
      if (take === undefined) return undefined
      const begin = end + 1
      if (rest.length < begin + take.octets) return rest
      if (!this.#adopt(take.n, take.ticket, rest.subarray(begin, begin + take.octets))) return undefined
      rest = rest.subarray(begin + take.octets)
    }
    return rest
  }

  sayBye(): void {
    if (this.#saidBye) return
    this.#saidBye = true
    this.#say({ type: 'bye' })
  }

  destroy(): void {
    this.#lines.destroy()
  }

  /** False if login did not keep to the rules: no descriptor came before the line. */
  #adopt(n: number, ticket: string, readAhead: Uint8Array): boolean {
    const descriptor = takeDescriptor(this.#passing)
    if (descriptor === undefined) return false
    if (descriptor === null) {
      // Too many open files: this client is lost, the others are not.
      this.#say({ type: 'ended', n })
      return true
    }
    const client = new ClientSocket(descriptor)
    this.#clients.add(client)
    client.onceClosed(() => {
      this.#clients.delete(client)
      this.#say({ type: 'ended', n })
      this.#endIfOver()
    })
    this.#take(client, ticket, readAhead)
    return true
  }

  /** After goodbyes on both sides and the last session, there is nothing more to say. */
  #endIfOver(): void {
    if (this.#inputEnds && this.#clients.size === 0) setImmediate(() => this.#lines.end())
  }

  /** What one turn of the event loop has to say goes out together. */
  #say(news: Parameters<typeof formatLinkNews>[0]): void {
    if (this.#news === '') {
      setImmediate(() => {
        if (!this.#lines.destroyed) this.#lines.write(this.#news, 'latin1')
        this.#news = ''
      })
    }
    this.#news += `${formatLinkNews(news)}\n`
  }
}
