import { connect, type Socket } from 'node:net'
import type { Duplex } from 'node:stream'
import type { Log } from '../../daemon/log.ts'
import {
  AUTHORIZATION_START,
  type AuthorizationEffect,
  type AuthorizationOptions,
  type AuthorizationState,
  type AuthorizationStep,
  afterFailure,
  type LoginFailure,
  lineLimit,
  runAuthorization,
} from '../../pop3/authorization.ts'
import { LineReader } from '../../pop3/line-reader.ts'
import { err, ok } from '../../pop3/reply.ts'
import { acceptTls } from '../../tunnel/accept-tls.ts'
import { relay } from '../../tunnel/relay.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { formatTimestamp } from '../../wire/session-id.ts'
import { parseSslPreamble } from '../../wire/ssl-preamble.ts'
import { textOfOctets } from '../text-of-octets.ts'
import type { Client } from './client.ts'
import { isPositive, readFirstLine } from './first-line.ts'
import type { KeeperRequest } from './keeper-requests.ts'
import type { LoginServer } from './login-server.ts'
import { loginUpstream } from './upstream-login.ts'

type Authenticate = Extract<AuthorizationEffect, { type: 'authenticate' }>

/** Octets that the client has not yet read, above which none of its commands is run. */
const HIGH_WATER = 65_536
/** A wrong preamble password is answered so late. */
const PREAMBLE_PENALTY_MS = 1_000
const HANDSHAKE_LIMIT_MS = 30_000
/** A client that does not take our last words is left. */
const LINGER_MS = 5_000
/** A chained program's last word on a login that it did not accept comes within so long of its closing the connection. */
const CHAIN_END_LIMIT_MS = 70_000

/** One client before login: from the greeting to the relay that carries the rest of the session. */
export class LoginSession {
  readonly #server: LoginServer
  readonly #raw: Socket
  readonly #log: Log
  readonly #timestamp: string
  #client: Client
  #stream: Duplex
  #reader = new LineReader()
  #state: AuthorizationState = AUTHORIZATION_START
  #options: AuthorizationOptions
  /** Somebody is being asked: the client's next lines wait. */
  #busy = false
  #inputEnded = false
  #over = false
  #request: KeeperRequest | undefined
  readonly #timer: NodeJS.Timeout
  readonly #receive = (chunk: Buffer): void => {
    this.#reader.push(chunk)
    this.#run()
  }
  readonly #inputEnd = (): void => {
    this.#inputEnded = true
    this.#run()
  }
  readonly #gone = (): void => this.#finish()
  readonly #drained = (): void => {
    if (!this.#busy && !this.#over) this.#stream.resume()
  }

  constructor(server: LoginServer, socket: Socket, client: Client) {
    this.#server = server
    this.#raw = socket
    this.#stream = socket
    this.#client = client
    this.#log = server.log.with({ id: client.id })
    this.#timestamp = formatTimestamp(client.id, Math.floor(Date.now() / 1000), server.settings.hostname)
    this.#options = server.optionsFor(client)
    this.#timer = setTimeout(() => this.#timedOut(), server.settings.loginTime)
  }

  /** Greets the client and listens to it. */
  start(): void {
    this.#raw.on('error', this.#gone)
    this.#raw.on('close', this.#gone)
    this.#raw.write(ok(this.#timestamp))
    this.#listen()
  }

  /** The server stops: a client that has not logged in has nothing to lose. */
  dismiss(): void {
    if (this.#busy) return
    this.#close()
  }

  #listen(): void {
    this.#stream.on('data', this.#receive).on('end', this.#inputEnd).on('drain', this.#drained)
    this.#stream.resume()
  }

  #unlisten(): void {
    this.#stream.pause()
    this.#stream.off('data', this.#receive).off('end', this.#inputEnd).off('drain', this.#drained)
  }

  /** Runs the lines that are there, until one of them needs somebody else's answer. Replies go out together. */
  #run(): void {
    let replies = ''
    while (!this.#busy && !this.#over) {
      const line = this.#reader.next(lineLimit(this.#state))
      if (line === undefined) break
      const step = runAuthorization(this.#state, line, this.#options)
      replies = this.#apply(step, replies)
    }
    this.#write(replies)
    if (this.#inputEnded && !this.#busy && !this.#over) this.#close()
  }

  /** Answers the replies that are still to be written. */
  #apply({ state, effects }: AuthorizationStep, before = ''): string {
    let replies = before
    this.#state = state
    for (const effect of effects) {
      if (effect.type === 'reply') {
        replies += effect.text
        continue
      }
      this.#write(replies)
      replies = ''
      switch (effect.type) {
        case 'close':
          this.#close()
          break
        case 'authenticate':
          this.#wait(this.#authenticate(effect))
          break
        case 'startTls':
          this.#wait(this.#startTls())
          break
        case 'preamble':
          this.#wait(this.#preamble(effect.argument))
          break
      }
    }
    return replies
  }

  /** The client's further lines wait until this is done. */
  #wait(work: Promise<void>): void {
    this.#busy = true
    this.#stream.pause()
    work
      .catch((error: unknown) => {
        this.#log.error('session_failed', { reason: error instanceof Error ? (error.stack ?? error) : String(error) })
        this.#close()
      })
      .finally(() => {
        this.#busy = false
        if (this.#over) return
        this.#stream.resume()
        this.#run()
      })
  }

  #write(text: string): void {
    if (text === '' || this.#stream.destroyed) return
    this.#stream.write(text, 'latin1')
    if (this.#stream.writableLength > HIGH_WATER) this.#stream.pause()
  }

  async #authenticate({ login, secret, method }: Authenticate): Promise<void> {
    const { keeper, settings } = this.#server
    const { id, ip, port, localIp, localPort, tls, proxyIp } = this.#client
    if (settings.upstream !== null) return this.#askUpstream({ login, secret, method, type: 'authenticate' })
    const request = keeper.verify({
      id,
      login,
      secret,
      method,
      ip,
      tls,
      timestamp: this.#timestamp,
      ...(port === undefined ? {} : { remotePort: port }),
      ...(localIp === undefined ? {} : { localIp }),
      ...(localPort === undefined ? {} : { localPort }),
      ...(proxyIp === undefined ? {} : { proxyIp }),
    })
    this.#request = request
    if (settings.mode === 'chain') return this.#throughChain(request)
    const answer = await request.answer()
    this.#endRequest()
    if (this.#over) return
    if (answer.type === 'open') await this.#openMaildrop(answer.socket, answer.ticket)
    else this.#failed(answer.type === 'failed' ? answer.failure : 'temporary')
  }

  /** What the worker says first is the answer to the password. */
  async #openMaildrop(socketPath: string, ticket: string): Promise<void> {
    const worker = connect({ path: socketPath, allowHalfOpen: true })
    const error = await new Promise<Error | undefined>(resolve => {
      worker.once('connect', () => resolve(undefined))
      worker.once('error', resolve)
    })
    if (error !== undefined) {
      this.#log.error('maildrop_unreachable', { reason: error })
      this.#failed('temporary')
      return
    }
    worker.write(`${ticket}\n`)
    await this.#relay(worker)
  }

  /** The client's further bytes are held back until +OK is out: programs of qmail's time lose what comes earlier. */
  async #throughChain(request: KeeperRequest): Promise<void> {
    const { chains } = this.#server
    const program = new Promise<Socket>(resolve => chains.expect(request.n, resolve))
    const answered = request.answer()
    const first = await Promise.race([program, answered])
    chains.forget(request.n)
    if ('type' in first) {
      this.#endRequest()
      this.#failed(first.type === 'failed' ? first.failure : 'temporary')
      return
    }
    const reply = await readFirstLine(first, CHAIN_END_LIMIT_MS)
    if (reply !== undefined && isPositive(reply)) request.report('yes')
    else first.destroy()
    const answer = await answered
    this.#endRequest()
    if (this.#over || answer.type !== 'announced' || reply === undefined) {
      first.destroy()
      if (!this.#over) this.#failed(answer.type === 'failed' ? answer.failure : 'temporary')
      return
    }
    this.#stream.write(reply.line)
    if (reply.rest.length > 0) this.#stream.write(reply.rest)
    await this.#relay(first)
  }

  /** The server behind judges; the secret goes there and nowhere else. */
  async #askUpstream({ login, secret, method }: Authenticate): Promise<void> {
    const { keeper, settings } = this.#server
    const { id, ip, port, localIp, localPort, tls } = this.#client
    if (settings.upstream === null) return
    if (method === 'apop') {
      // The digest is over our own timestamp: nobody behind could check it.
      this.#failed('credentials')
      return
    }
    const request = keeper.attempt({ id, login, method, ip, tls })
    this.#request = request
    const first = await request.answer()
    if (this.#over) return
    if (first.type !== 'proceed') {
      this.#endRequest()
      this.#failed(first.type === 'failed' ? first.failure : 'temporary')
      return
    }
    const answer = await loginUpstream(
      settings.upstream,
      { login, secret },
      {
        id,
        source: { ip, port: port ?? 0 },
        destination: { ip: localIp ?? ip, port: localPort ?? 110 },
        tls,
      },
    )
    if (this.#over) {
      if (answer.outcome === 'yes') answer.stream.destroy()
      return
    }
    request.report(answer.outcome)
    const last = await request.answer()
    this.#endRequest()
    if (answer.outcome !== 'yes') {
      if (!this.#over) this.#failed(last.type === 'failed' ? last.failure : 'temporary')
      return
    }
    if (this.#over || last.type !== 'announced') {
      answer.stream.destroy()
      if (!this.#over) this.#failed(last.type === 'failed' ? last.failure : 'temporary')
      return
    }
    this.#stream.write(answer.reply.line)
    if (answer.reply.rest.length > 0) this.#stream.write(answer.reply.rest)
    await this.#relay(answer.stream)
  }

  /** From here on the session is the other one's; what was read ahead goes with it. */
  async #relay(other: Duplex): Promise<void> {
    if (this.#over) {
      other.destroy()
      return
    }
    clearTimeout(this.#timer)
    this.#unlisten()
    const rest = this.#reader.rest()
    if (rest.length > 0) other.write(rest)
    this.#server.loggedIn(this)
    const { mode, idleTime } = this.#server.settings
    // Our own worker keeps the time by itself; of other servers nobody knows.
    const end = await relay(this.#stream, other, mode === 'verify' ? {} : { idleLimit: idleTime + 60_000 })
    this.#log.debug('end', {
      reason: end.reason,
      first: end.first,
      in: end.bytesFromClient + rest.length,
      out: end.bytesFromServer,
    })
    this.#finish()
  }

  #failed(failure: LoginFailure): void {
    this.#write(this.#apply(afterFailure(this.#state, failure, this.#options)))
  }

  /** RFC 2595 §4: whatever came in clear text behind the command is thrown away, and the session begins anew. */
  async #startTls(): Promise<void> {
    const { stls } = this.#server
    if (stls === undefined) throw new Error('STLS was offered without a certificate')
    this.#unlisten()
    this.#reader = new LineReader()
    const accepted = await acceptTls(this.#raw, { contexts: stls, alpn: 'pop3', limit: HANDSHAKE_LIMIT_MS })
    if (accepted.outcome !== 'secure') {
      if (accepted.outcome === 'failed') this.#log.info('tlsfail', { ip: this.#client.ip, reason: accepted.reason })
      this.#finish()
      return
    }
    const { socket } = accepted
    if (this.#over) {
      socket.destroy()
      return
    }
    socket.on('error', this.#gone)
    socket.on('close', this.#gone)
    this.#stream = socket
    this.#state = { ...AUTHORIZATION_START, begun: true, failures: this.#state.failures }
    this.#become({ ...this.#client, tls: true })
    this.#listen()
  }

  /** spec/popup.md §6. */
  async #preamble(argument: string): Promise<void> {
    const { settings, keeper } = this.#server
    if (settings.preamble === null) throw new Error('SSL was allowed without a password')
    const parsed = parseSslPreamble(`SSL ${argument}`)
    const peer = this.#client.ip
    if (parsed === undefined || parsed === 'malformed') {
      keeper.preambleRefused(peer, 'badhost')
      this.#write(err('syntax error'))
      this.#close()
      return
    }
    if (!this.#server.preamblePassword?.matches(parsed.pass)) {
      keeper.preambleRefused(peer, 'badpass')
      await new Promise(resolve => setTimeout(resolve, PREAMBLE_PENALTY_MS))
      this.#write(err('authorization failed'))
      this.#close()
      return
    }
    if (!this.#takePlace(parsed.host)) return
    this.#become({ ...this.#client, ip: parsed.host, port: undefined, tls: true, proxyIp: peer })
    if (settings.preamble.reply === 'ok') this.#write(ok())
  }

  /** The place of the proxy is free again; the client behind it takes one of its own. */
  #takePlace(ip: IpAddress): boolean {
    if (this.#server.moveTo(this, ip)) return true
    this.#write(err(TOO_MANY))
    this.#close()
    return false
  }

  #become(client: Client): void {
    this.#client = client
    this.#options = this.#server.optionsFor(client)
  }

  #timedOut(): void {
    this.#log.info('timeout', { ip: this.#client.ip, user: textOfOctets(this.#state.user ?? '') })
    // RFC 1939 §3: no words.
    this.#finish()
  }

  /** Ends after what has been written is delivered. */
  #close(): void {
    if (this.#over) return
    this.#unlisten()
    const stream = this.#stream
    this.#stream.end(() => stream.destroy())
    setTimeout(() => stream.destroy(), LINGER_MS).unref()
    this.#leave()
  }

  #finish(): void {
    this.#stream.destroy()
    this.#raw.destroy()
    this.#leave()
  }

  #leave(): void {
    if (this.#over) return
    this.#over = true
    clearTimeout(this.#timer)
    if (this.#request !== undefined) {
      this.#request.end(true)
      this.#request = undefined
    }
    this.#server.left(this)
  }

  #endRequest(): void {
    this.#request?.end(false)
    this.#request = undefined
  }
}

/** One polite line for a client that finds every place taken. */
export const TOO_MANY = '[SYS/TEMP] too many connections, try again later'
