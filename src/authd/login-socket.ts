import { createServer, type Server, type Socket } from 'node:net'
import { openListener } from '../daemon/listener.ts'
import type { Log } from '../daemon/log.ts'
import type { Ids } from '../daemon/privileges.ts'
import type { SocketAddress } from '../daemon/socket-address.ts'
import { peerIsAllowed } from '../daemon/unix-peer.ts'
import { LineSplitter } from '../wire/line-splitter.ts'
import { formatLoginAnswer, type LoginAnswer, MAX_LOGIN_EVENT_LINE, parseLoginEvent } from '../wire/login-event.ts'
import type { Counters } from './counters.ts'
import type { Intake } from './intake.ts'

export type LoginSocketOptions = {
  readonly path: string
  /** Accounts besides root and our own that may announce logins. */
  readonly uids: ReadonlySet<number>
  /** Account that the socket is given to; left out: our own. */
  readonly owner?: Ids | undefined
  readonly intake: Pick<Intake, 'hearLogin'>
  readonly counters: Counters
  readonly log: Log
}

/** Announcements of one connection that wait for their answer; beyond, it is not read from. */
const MAX_IN_FLIGHT = 4096
const MAX_CONNECTIONS = 256

/** The Unix socket where popup announces logins: one line each way, several in flight, answers in any order. */
export class LoginSocket {
  readonly #options: LoginSocketOptions
  readonly #server: Server
  readonly #open = new Set<Socket>()

  constructor(options: LoginSocketOptions) {
    this.#options = options
    this.#server = createServer(socket => this.#accept(socket))
    this.#server.maxConnections = MAX_CONNECTIONS
  }

  /** Where it listens. The mode lets our own account in; others need the directory's leave and their name in the settings. */
  async listen(): Promise<SocketAddress> {
    const mode = this.#options.uids.size === 0 ? 0o600 : 0o666
    return openListener(this.#server, { type: 'unix', path: this.#options.path }, 'authd.socket', {
      mode,
      ...this.#options.owner,
    })
  }

  /** No new connections; those that are open get their answers. */
  stopListening(): void {
    this.#server.close()
  }

  close(): void {
    this.stopListening()
    for (const socket of this.#open) socket.end().unref()
  }

  #accept(socket: Socket): void {
    const { counters, log, uids } = this.#options
    if (!peerIsAllowed(socket, uids)) {
      counters.foreignPeers += 1
      log.warn('foreign-peer', { reason: 'account may not announce logins: add it to authd.socket_users' })
      socket.destroy()
      return
    }
    this.#open.add(socket)
    const connection = new Announcer(socket, this.#options)
    socket.on('data', chunk => connection.hear(chunk))
    // A peer that went away takes nothing back: what it announced is stored all the same.
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#open.delete(socket))
  }
}

/** One connection: reads announcements, writes answers, holds back when either side is slow. */
class Announcer {
  readonly #socket: Socket
  readonly #options: LoginSocketOptions
  readonly #splitter = new LineSplitter(MAX_LOGIN_EVENT_LINE)
  #inFlight = 0
  #answers = ''
  readonly #complained = new Set<string>()

  constructor(socket: Socket, options: LoginSocketOptions) {
    this.#socket = socket
    this.#options = options
    socket.on('drain', () => this.#resumeIfRoom())
  }

  hear(chunk: Buffer): void {
    const { lines, overlong } = this.#splitter.push(chunk)
    for (const line of lines) this.#announcement(line)
    for (let n = 0; n < overlong; n++) this.#refuse('-', 'syntax')
    if (this.#inFlight >= MAX_IN_FLIGHT) this.#socket.pause()
  }

  #announcement(line: string): void {
    const event = parseLoginEvent(line)
    if ('reason' in event) {
      this.#refuse(event.id, event.reason)
      return
    }
    this.#inFlight += 1
    this.#options.intake.hearLogin(event, answer => {
      this.#inFlight -= 1
      this.#send(answer)
      this.#resumeIfRoom()
    })
  }

  /** Unknown version or key: refused, logged once for a connection and kind, connection kept. */
  #refuse(id: string, reason: string): void {
    this.#options.counters.badAnnouncements += 1
    if (!this.#complained.has(reason)) {
      this.#complained.add(reason)
      this.#options.log.warn('bad-announcement', { id, reason })
    }
    this.#send({ verdict: 'refused', id, reason })
  }

  /** Answers that come together, after one commit, go out in one write. */
  #send(answer: LoginAnswer): void {
    if (this.#answers === '') queueMicrotask(() => this.#flush())
    this.#answers += `${formatLoginAnswer(answer)}\n`
  }

  #flush(): void {
    const answers = this.#answers
    this.#answers = ''
    if (this.#socket.writable && !this.#socket.write(answers)) this.#socket.pause()
  }

  #resumeIfRoom(): void {
    if (this.#inFlight < MAX_IN_FLIGHT && !this.#socket.writableNeedDrain) this.#socket.resume()
  }
}
