/**
 * A client before login: its dialogue in the state AUTHORIZATION, STLS, and the preamble. After the
 * login the connection goes to a pop3d worker, whose first reply is +OK, or it is relayed.
 */
import { Socket } from 'node:net'
import { stackOf } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import {
  AUTHORIZATION_START,
  type AuthorizationEffect,
  type AuthorizationOptions,
  type AuthorizationState,
  type AuthorizationStep,
  afterFailure,
  afterStartTls,
  type LoginFailure,
  lineLimit,
  runAuthorization,
} from '../../pop3/authorization.ts'
import { err, ok } from '../../pop3/reply.ts'
import type { Secret } from '../../settings/secret.ts'
import type { Connection, ConnectionListener, HalfClosable } from '../../sockets/connection.ts'
import { joinConnections } from '../../sockets/join-connections.ts'
import { StreamConnection } from '../../sockets/stream-connection.ts'
import { acceptTls, isOldTls } from '../../tunnel/accept-tls.ts'
import { relay } from '../../tunnel/relay.ts'
import type { TlsContexts } from '../../tunnel/tls-contexts.ts'
import { beginsLikeTls } from '../../wire/client-hello.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { LineReader } from '../../wire/lines.ts'
import { decodeLogin } from '../../wire/login-event.ts'
import { beginsWithProxyHeader, parseSslPreamble } from '../../wire/preamble.ts'
import { ClientDisconnect } from '../client-disconnect.ts'
import type { Authenticator, LoginResult, WorkerSession } from './authenticator.ts'
import { type Client, TOO_MANY } from './client.ts'

type Authenticate = Extract<AuthorizationEffect, { kind: 'authenticate' }>
/** Octets of replies that the client has not read, above which none of its commands is run. */
const HIGH_WATER_OCTETS = 4_096
/** Lines of one client that are run in one turn of the event loop. */
const LINES_PER_TURN = 32
/**
 * Octets read from a client at a time: no line before login is longer, and they wait here while a
 * password is checked.
 */
const READ_OCTETS = 16_384
/** Delay of the reply to a wrong preamble password. */
const PREAMBLE_PENALTY_MS = 1_000
const HANDSHAKE_LIMIT_MS = 30_000
/** Time limit for the first octet of a client of TLS, which sends first. */
const FIRST_OCTET_MS = 5_000
/** Time limit for a client that does not read the last reply. */
const LINGER_MS = 5_000

/** The parts of the process that a session needs. */
export type LoginSessionHost = {
  readonly log: Log
  readonly authenticate: Authenticator
  /** Milliseconds from the greeting to the login. */
  readonly loginTime: number
  /** Milliseconds without a byte in a relayed session, after which it ends. */
  readonly idleLimit: number
  /** The SSL command, if it is configured. */
  readonly preamble: { readonly password: Secret; readonly reply: 'ok' | 'none' } | undefined
  /** The certificate for STLS, if STLS is offered. */
  readonly stls: TlsContexts | undefined
  /** The greeting offers APOP (RFC 1939 §7). */
  readonly apop: boolean
  timestampFor(client: Client): string
  optionsFor(client: Client): AuthorizationOptions
  preambleRefused(peer: IpAddress, reason: 'badpass' | 'badhost'): void
  /**
   * The administrator's remedy for a client with old TLS only; undefined if it was logged today.
   */
  oldTlsRemedy(ip: IpAddress): string | undefined
  /**
   * The client began with a PROXY header, or with TLS, on a POP3 port: an address or port is
   * configured wrongly.
   */
  anotherProtocol(client: Client, protocol: 'PROXY' | 'TLS'): void
  /** A proxy named its client: returns true if that address may have one more connection. */
  moveTo(session: LoginSession, client: Client): boolean
  /**
   * The login succeeded: returns true if the login, and the owner of the mail, may have one more
   * session. An unknown owner is undefined.
   */
  admit(session: LoginSession, login: string, owner: string | undefined): boolean
  loggedIn(session: LoginSession): void
  left(session: LoginSession): void
  /**
   * The client's connection is closed, here or after its handoff; `left` is called before or at the
   * same time.
   */
  disconnected(session: LoginSession): void
}

/**
 * `reading`: received lines are run at once. `held`: the next lines wait for a later turn of the
 * event loop, or until the client has read replies. `waiting`: the next lines wait for an answer
 * about the client. `securing`: a TLS handshake goes on. `passed`: a worker or a server behind has
 * the session. `over`: the session has ended, and no other phase follows.
 */
type SessionPhase = 'reading' | 'held' | 'waiting' | 'securing' | 'passed' | 'over'

/** One client before login: from the greeting to the relay that carries the rest of the session. */
export class LoginSession implements ConnectionListener {
  readonly #host: LoginSessionHost
  readonly #log: Log
  readonly #timestamp: string
  #client: Client
  /** The client's own connection, in clear text. */
  readonly #raw: Connection
  /** The connection of the dialogue: the client's, or TLS in it. */
  #connection: Connection
  #reader = new LineReader()
  #state: AuthorizationState = AUTHORIZATION_START
  #options: AuthorizationOptions
  #phase: SessionPhase = 'reading'
  #inputEnded = false
  /** For the pending login request: reports that the client has disconnected. */
  readonly #disconnect = new ClientDisconnect()
  readonly #timer: NodeJS.Timeout

  /** Takes ownership of the client's connection. */
  constructor(host: LoginSessionHost, raw: Connection, client: Client) {
    this.#host = host
    this.#raw = raw
    this.#connection = raw
    this.#client = client
    this.#log = host.log.with({ id: client.id })
    this.#timestamp = host.timestampFor(client)
    this.#options = host.optionsFor(client)
    this.#timer = setTimeout(() => this.#timedOut(), host.loginTime)
  }

  /**
   * Greets the client and reads from it. `readAhead` contains the octets that it has already sent.
   */
  start(readAhead?: Uint8Array): void {
    this.#raw.readAtMost(READ_OCTETS)
    this.#follow()
    this.#connection.listen(this)
    this.#greet()
    if (readAhead !== undefined && readAhead.length > 0) this.data(readAhead)
    if (this.#isReading) this.#connection.resume()
  }

  /** The session ends with the client's connection, in each of its forms. */
  #follow(): void {
    this.#raw.onceClosed(() => {
      this.#finish()
      this.#host.disconnected(this)
    })
  }

  /**
   * The angle brackets make the id a timestamp, and the timestamp alone offers APOP. The session id
   * is in the greeting either way.
   */
  #greet(): void {
    this.#connection.write(ok(this.#host.apop ? this.#timestamp : this.#timestamp.slice(1, -1)))
  }

  /** As `start`, for a client that begins with TLS. The greeting comes after the handshake. */
  startSecure(): void {
    this.#follow()
    this.#wait('securing', () => this.#startTls(FIRST_OCTET_MS).then(() => this.#greet()))
  }

  /** The server stops, and closes a client that has not logged in. */
  closeUnlessBusy(): void {
    if (this.#phase === 'securing') this.#finish()
    else if (this.#phase === 'reading' || this.#phase === 'held') this.#close()
  }

  /** An answer about this client is pending, for example a password check. */
  get isBusy(): boolean {
    return this.#phase === 'waiting'
  }

  /** Every place is taken, and another client gets the place of this one. */
  giveWay(): void {
    if (this.#phase !== 'over') this.#log.warn('connection_refused', { ip: this.#client.ip, reason: 'max_connections' })
    this.#finish()
  }

  get #isReading(): boolean {
    return this.#phase === 'reading'
  }

  /** Changes the phase. A session that is over stays so. */
  #enter(phase: SessionPhase): void {
    if (this.#phase !== 'over') this.#phase = phase
  }

  data(octets: Uint8Array): void {
    this.#reader.push(octets)
    if (!this.#state.begun && this.#isAnotherProtocol()) return
    this.#run()
  }

  /**
   * Checks the first octets, and closes if they are not POP3, because otherwise each line would be
   * answered as a command.
   */
  #isAnotherProtocol(): boolean {
    const first = this.#reader.pending
    if (beginsWithProxyHeader(first)) {
      this.#host.anotherProtocol(this.#client, 'PROXY')
      this.#connection.write(err('a PROXY header is not expected here'))
    } else if (beginsLikeTls(first)) this.#host.anotherProtocol(this.#client, 'TLS')
    else return false
    this.#close()
    return true
  }

  end(): void {
    this.#inputEnded = true
    this.#run()
  }

  drained(): void {
    this.#goOn()
  }

  closed(): void {
    this.#finish()
  }

  /**
   * Runs the received lines, until one of them needs an answer of another process, or the client
   * reaches its limit for one turn.
   */
  #run(): void {
    if (!this.#isReading) return
    let replies = ''
    for (let lines = 0; this.#isReading; lines += 1) {
      if (lines === LINES_PER_TURN || replies.length + this.#connection.unsent > HIGH_WATER_OCTETS) {
        this.#hold()
        break
      }
      const line = this.#reader.next(lineLimit(this.#state))
      if (line === undefined) break
      const step = runAuthorization(this.#state, line, this.#options)
      replies = this.#apply(step, replies)
    }
    this.#connection.write(replies)
    if (this.#inputEnded && this.#isReading) this.#close()
  }

  /**
   * Lets other clients run first. If the client does not read its replies, its next lines wait
   * until it does.
   */
  #hold(): void {
    this.#enter('held')
    this.#connection.pause()
    setImmediate(() => this.#goOn())
  }

  /** If the turn has passed already, `drained` calls this again. */
  #goOn(): void {
    if (this.#phase !== 'held' || this.#connection.unsent > HIGH_WATER_OCTETS) return
    this.#enter('reading')
    this.#connection.resume()
    this.#run()
  }

  /** Writes the pending replies. */
  #apply({ state, effects }: AuthorizationStep, before = ''): string {
    let replies = before
    this.#state = state
    for (const effect of effects) {
      if (effect.kind === 'reply') {
        replies += effect.text
        continue
      }
      this.#connection.write(replies)
      replies = ''
      switch (effect.kind) {
        case 'close':
          this.#close()
          break
        case 'authenticate':
          this.#wait('waiting', () => this.#authenticate(effect))
          break
        case 'startTls':
          this.#wait('securing', () => this.#startTls())
          break
        case 'preamble':
          this.#wait('waiting', () => this.#preamble(effect.argument))
          break
      }
    }
    return replies
  }

  /** The client's further lines wait until this is done. */
  #wait(phase: 'waiting' | 'securing', work: () => Promise<void>): void {
    this.#enter(phase)
    const done = work()
    this.#connection.pause()
    done
      .catch((error: unknown) => {
        this.#log.error('session_failed', { reason: stackOf(error) })
        this.#close()
      })
      .finally(() => {
        if (this.#phase !== phase) return
        this.#enter('reading')
        this.#connection.resume()
        this.#run()
      })
  }

  async #authenticate({ login, secret, method }: Authenticate): Promise<void> {
    const request = { login, secret, method, client: this.#client, timestamp: this.#timestamp }
    let result = await this.#host.authenticate(request, this.#disconnect)
    this.#disconnect.listen(undefined)
    if (result.kind === 'maildrop' || result.kind === 'open') {
      const owner = result.kind === 'maildrop' ? result.worker.owner : undefined
      if (this.#phase !== 'over' && !this.#host.admit(this, login, owner)) {
        if (result.kind === 'open') result.stream.destroy()
        this.#failed('inUse')
        return
      }
    }
    if (result.kind === 'maildrop') {
      if (this.#phase === 'over' || this.#pass(result.worker)) return
      const server = result.worker.bridge(this.#reader.pending)
      if (server !== undefined) return this.#join(server)
      result = await result.worker.connect()
    }
    if (result.kind === 'open') await this.#relay(result)
    else if (this.#phase === 'over') return
    else if (result.kind === 'failed') this.#failed(result.failure)
    else this.#close()
  }

  /**
   * From here on the session belongs to the worker, which gets the octets that were read ahead.
   * With TLS the keys are in this process, so that the octets pass through it.
   */
  async #join(server: HalfClosable): Promise<void> {
    this.#enter('passed')
    clearTimeout(this.#timer)
    this.#reader.rest()
    this.#host.loggedIn(this)
    const end = await joinConnections(this.#connection, server, { idleLimit: this.#host.idleLimit })
    this.#log.debug('session_ended', { reason: end.reason, in: end.bytesFromClient, out: end.bytesFromServer })
    this.#finish()
  }

  /** From here on the other side owns the session, with the unused input. */
  async #relay({ stream: other, reply }: Extract<LoginResult, { kind: 'open' }>): Promise<void> {
    if (this.#phase === 'over' || this.#connection.isDestroyed) {
      other.destroy()
      this.#finish()
      return
    }
    this.#enter('passed')
    clearTimeout(this.#timer)
    const stream = this.#connection.toStream()
    for (const piece of reply) if (piece.length > 0) stream.write(piece)
    const rest = this.#reader.rest()
    if (rest.length > 0) other.write(rest)
    this.#host.loggedIn(this)
    const end = await relay(stream, other, { idleLimit: this.#host.idleLimit })
    this.#log.debug('session_ended', {
      reason: end.reason,
      first: end.first,
      in: end.bytesFromClient + rest.length,
      out: end.bytesFromServer,
    })
    this.#finish()
  }

  /**
   * Hands the connection of a client in clear text over, so that no octet of the mail passes
   * through this process. With TLS the keys are in this process, so that its connection cannot be
   * handed over. False if it cannot be done now.
   */
  #pass(worker: WorkerSession): boolean {
    const isPassed = worker.pass(this.#connection, this.#reader.pending, () => {
      this.#leave()
      this.#host.disconnected(this)
    })
    if (!isPassed) return false
    this.#enter('passed')
    clearTimeout(this.#timer)
    this.#host.loggedIn(this)
    this.#log.debug('client_handed_off', {})
    return true
  }

  #failed(failure: LoginFailure): void {
    this.#connection.write(this.#apply(afterFailure(this.#state, failure, this.#options)))
  }

  /**
   * RFC 2595 §4: octets in clear text behind the command are discarded, and a new session begins.
   */
  async #startTls(firstOctetLimit?: number): Promise<void> {
    const { stls } = this.#host
    if (this.#connection.isDestroyed) return this.#finish()
    const raw = this.#connection.toStream()
    if (stls === undefined) throw new Error('TLS was offered without a certificate')
    if (!(raw instanceof Socket)) throw new Error(`TLS needs a socket, and this client has a ${raw.constructor.name}`)
    this.#reader = new LineReader()
    const accepted = await acceptTls(raw, {
      contexts: stls,
      alpn: 'pop3',
      ...(firstOctetLimit === undefined ? {} : { firstOctetLimit }),
      limit: HANDSHAKE_LIMIT_MS,
    })
    if (accepted.kind !== 'secure') {
      if (accepted.kind === 'failed' && this.#phase !== 'over') {
        const { reason } = accepted
        const remedy = isOldTls(reason) ? this.#host.oldTlsRemedy(this.#client.ip) : undefined
        this.#log.info('tls_failed', { ip: this.#client.ip, reason, remedy })
      }
      this.#finish()
      return
    }
    const { socket } = accepted
    if (this.#phase === 'over') {
      socket.destroy()
      return
    }
    this.#connection = new StreamConnection(socket, socket)
    this.#connection.listen(this)
    this.#state = afterStartTls(this.#state)
    this.#become({ ...this.#client, tls: true })
  }

  /** spec/popup.md §6. */
  async #preamble(argument: string): Promise<void> {
    const { preamble } = this.#host
    if (preamble === undefined) throw new Error('SSL was allowed without a password')
    const parsed = parseSslPreamble(`SSL ${argument}`)
    const peer = this.#client.ip
    if (parsed === undefined || parsed === 'malformed') {
      this.#host.preambleRefused(peer, 'badhost')
      this.#connection.write(err('syntax error'))
      this.#close()
      return
    }
    if (!preamble.password.matches(parsed.pass)) {
      this.#host.preambleRefused(peer, 'badpass')
      await new Promise(resolve => setTimeout(resolve, PREAMBLE_PENALTY_MS))
      this.#connection.write(err('authorization failed'))
      this.#close()
      return
    }
    const client: Client = { ...this.#client, ip: parsed.host, port: undefined, tls: true, proxyIp: peer }
    if (!this.#host.moveTo(this, client)) {
      this.#connection.write(err(TOO_MANY))
      this.#close()
      return
    }
    this.#become(client)
    if (preamble.reply === 'ok') this.#connection.write(ok())
  }

  #become(client: Client): void {
    this.#client = client
    this.#options = this.#host.optionsFor(client)
  }

  #timedOut(): void {
    this.#log.info('login_timed_out', { ip: this.#client.ip, user: decodeLogin(this.#state.user ?? '') })
    // RFC 1939 §3: the connection is closed without a reply.
    this.#finish()
  }

  /** Closes after all written octets are delivered. */
  #close(): void {
    if (this.#phase === 'over') return
    const connection = this.#connection
    connection.end()
    if (!connection.isDestroyed) setTimeout(() => connection.destroy(), LINGER_MS).unref()
    this.#leave()
  }

  #finish(): void {
    this.#connection.destroy()
    this.#raw.destroy()
    this.#leave()
  }

  #leave(): void {
    if (this.#phase === 'over') return
    this.#phase = 'over'
    clearTimeout(this.#timer)
    this.#reader.rest()
    this.#disconnect.signal()
    this.#host.left(this)
  }
}
