/**
 * The socket of popup's login events as a login source: its answers, and its end without a lost
 * event.
 */
import type { Log } from '../base/log.ts'
import { LineServer } from '../process/line-server.ts'
import { openListener } from '../process/listener.ts'
import type { Ids } from '../process/privileges.ts'
import type { SocketAddress } from '../process/socket-address.ts'
import { LineSplitter } from '../wire/lines.ts'
import {
  type BadLoginEvent,
  formatLoginAnswer,
  type LoginAnswer,
  MAX_LOGIN_EVENT_LINE,
  parseLoginEvent,
} from '../wire/login-event.ts'
import type { Counters } from './counters.ts'
import type { LoginSources } from './login-sources.ts'

export type LoginSocketOptions = {
  readonly path: string
  /** Accounts besides root and the account of authd that may announce logins. */
  readonly uids: ReadonlySet<number>
  /** Account that owns the socket; by default the account of authd. */
  readonly owner?: Ids | undefined
  readonly sources: Pick<LoginSources, 'acceptLogin'>
  readonly counters: Counters
  readonly log: Log
}

/** `maxOpen`: announcements that wait for their answer. popup keeps its connection open. */
const LIMITS = { maxConnections: 256, maxOpen: 4096, idleMs: 0 }

/** A line, or undefined for one that was too long to be read. */
type Announcement = { readonly line: string | undefined }

/** The fault of a line that was too long to be read. */
const OVERLONG: BadLoginEvent = { reason: 'syntax', id: '-' }

/**
 * The Unix socket where popup announces logins: one line each way, several in flight, answers in
 * any order. Logins of a peer that disconnects are stored too.
 */
export class LoginSocket {
  readonly #options: LoginSocketOptions
  readonly #server: LineServer<Announcement>

  constructor(options: LoginSocketOptions) {
    this.#options = options
    const { log, counters, uids } = options
    this.#server = new LineServer({
      name: 'logins',
      order: 'any',
      failure: undefined,
      limits: () => LIMITS,
      uids,
      onForeignPeer: () => {
        counters.foreignPeers += 1
        log.warn('peer_refused', { reason: 'account may not announce logins: add it to authd.socket_users' })
      },
      log: () => log,
      newService: () => new AnnouncerConnection(options),
    })
  }

  /**
   * The address of the listener. The mode of the socket admits the account of authd. Other accounts
   * need access to the directory and their name in the settings.
   */
  async listen(): Promise<SocketAddress> {
    const mode = this.#options.uids.size === 0 ? 0o600 : 0o666
    return openListener(this.#server.server, { kind: 'unix', path: this.#options.path }, 'authd.socket', {
      mode,
      ...this.#options.owner,
    })
  }

  /**
   * Takes no further login event, because authd is about to end. Logins in progress get their
   * answers. The peer sends every event without an answer again to the next authd.
   */
  drain(): void {
    this.#server.drain()
  }

  close(): void {
    this.#server.close()
  }
}

/** The connection of one announcer. */
class AnnouncerConnection {
  readonly #options: LoginSocketOptions
  readonly #splitter = new LineSplitter(MAX_LOGIN_EVENT_LINE)
  readonly #complained = new Set<BadLoginEvent['reason']>()

  constructor(options: LoginSocketOptions) {
    this.#options = options
  }

  cut(chunk: Buffer): readonly Announcement[] {
    const { lines, overlong } = this.#splitter.push(chunk)
    const tooLong = Array.from({ length: overlong }, () => ({ line: undefined }))
    return [...lines.map(line => ({ line })), ...tooLong]
  }

  async answer({ line }: Announcement): Promise<string> {
    return `${formatLoginAnswer(await this.#answerTo(line))}\n`
  }

  #answerTo(line: string | undefined): LoginAnswer | Promise<LoginAnswer> {
    const event = line === undefined ? OVERLONG : parseLoginEvent(line)
    if ('reason' in event) return this.#refuse(event)
    const { promise, resolve } = Promise.withResolvers<LoginAnswer>()
    this.#options.sources.acceptLogin(event, resolve)
    return promise
  }

  /**
   * Unknown version or key: the event is refused, logged once for a connection and kind, and the
   * connection is kept.
   */
  #refuse({ id, reason }: BadLoginEvent): LoginAnswer {
    this.#options.counters.badAnnouncements += 1
    if (!this.#complained.has(reason)) {
      this.#complained.add(reason)
      this.#options.log.warn('announcement_invalid', { id, reason })
    }
    return { verdict: 'refused', id, reason }
  }
}
