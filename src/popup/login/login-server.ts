/**
 * The login process of popup: its start, and everything that its sessions share.
 *
 * The process serves clients before login. It has no rights, and of all secrets only the password
 * of the SSL command and the key of a certificate. It reads POP3 in the state AUTHORIZATION
 * (session.ts), and leaves each decision to the monitor.
 *
 * A connection counts in three ways: a place of its address, until its socket is closed here or in
 * the worker that got it; a place among the connections before login, where a new client displaces
 * the oldest of the network with the most; and a share of its login and owner, after the login. A
 * connection behind a trusted proxy takes its place when the client is known.
 *
 * After the login the socket is passed to the worker of the maildrop, or this process relays to it.
 * After the last reply a socket lingers until the client has read the reply, for a limited time.
 */
import { closeSync } from 'node:fs'
import { monotonicClock, systemClock } from '../../base/clock.ts'
import { asError } from '../../base/errors.ts'
import { createLog, DailyHints, type Log } from '../../base/log.ts'
import { forbidNewPrivileges } from '../../libc/this-process.ts'
import type { AuthorizationOptions } from '../../pop3/authorization.ts'
import { err } from '../../pop3/reply.ts'
import { ConnectionLimits, WaitingConnections, watchDescriptors } from '../../process/connection-limits.ts'
import { openListener } from '../../process/listener.ts'
import { dropPrivileges } from '../../process/privileges.ts'
import { channelToParent, FIRST_LISTENING_DESCRIPTOR, returnFreeMemory } from '../../process/worker-process.ts'
import { Secret } from '../../settings/secret.ts'
import type { Connection } from '../../sockets/connection.ts'
import type { AcceptedSocket, Acceptor, Ends, Engine } from '../../sockets/engine.ts'
import { readProxyHeaderAndRest } from '../../sockets/proxy-header.ts'
import { selectEngine } from '../../sockets/select-engine.ts'
import { parseCertificate } from '../../tunnel/certificate.ts'
import { TicketKeyRing } from '../../tunnel/ticket-keys.ts'
import { TlsContexts } from '../../tunnel/tls-contexts.ts'
import { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { IpAddress } from '../../wire/ip-address.ts'
import { decodeLogin, formatTimestamp, isSessionId, type SessionId, sessionId } from '../../wire/login-event.ts'
import type { ProxyHeader } from '../../wire/preamble.ts'
import { type LoginSettings, parseToLogin } from '../../wire/workers/login-process.ts'
import type { Authenticator } from './authenticator.ts'
import { ChainConnections, chainAuthenticator } from './chain-authenticator.ts'
import { authorizationOptions, type Client, type LoginRules, TOO_MANY } from './client.ts'
import { HandoffSender } from './handoff-sender.ts'
import { MonitorRequests, monitorAuthenticator } from './monitor-authenticator.ts'
import { LoginSession, type LoginSessionHost } from './session.ts'
import { SessionShares, type ShareLimits } from './session-shares.ts'
import { upstreamAuthenticator } from './upstream-authenticator.ts'

/**
 * The process that serves clients before login, without rights. Its only secrets are the password
 * of the preamble and, for STLS and TLS listeners, the TLS key. The monitor starts it. Fulfilled
 * when it should end: the monitor has ended, or requested the end and the last session is over.
 */
export async function runLogin(): Promise<void> {
  const ended = Promise.withResolvers<void>()
  // A terminal's Ctrl-C reaches this process too, but the monitor decides when it stops.
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => {})
  // SCHED_BATCH: fewer wake-ups, with more work for each.
  const channel = channelToParent({ batch: true })
  const monitor = new MonitorRequests(channel)
  channel.onClose(ended.resolve)
  const started = Promise.withResolvers<LoginSettings>()
  let server: LoginServer | undefined
  /** Settings that came before the server was made: a reload may come while this process loads. */
  const early: LoginSettings[] = []
  const acceptors: Acceptor[] = []
  channel.onMessage(raw => {
    const message = parseToLogin(raw)
    if (message.type === 'settings') {
      if (server === undefined) {
        early.push(message.settings)
        started.resolve(message.settings)
      } else server.use(message.settings)
    } else if (message.type === 'drain') {
      for (const acceptor of acceptors) acceptor.close()
      if (server === undefined) ended.resolve()
      else void server.drain().then(ended.resolve)
    } else monitor.receive(message)
  })
  const first = await started.promise
  const settings = early.at(-1) ?? first
  const log = createLog('popup', { level: settings.logLevel })
  watchDescriptors(log)
  const engine = selectEngine(settings.engine, 'popup.engine', log)
  engine.logLimits(log)
  returnFreeMemory()
  server = new LoginServer(settings, monitor, engine, log)
  process.chdir(settings.directory)
  if (settings.ids !== null) dropPrivileges(settings.ids)
  forbidNewPrivileges()
  for (const [index, options] of settings.listeners.entries())
    acceptors.push(server.listen(FIRST_LISTENING_DESCRIPTOR + index, options))
  if (settings.mode === 'chain') {
    const fd = FIRST_LISTENING_DESCRIPTOR + settings.listeners.length
    await openListener(server.chains.server, { kind: 'descriptor', fd }, 'popup.listen')
  }
  monitor.ready()
  await ended.promise
}

/** The change that the administrator of a proxy or a client has to make. */
const WRONG_ADDRESS = {
  listen: 'a PROXY header came to an address of popup.listen: name the address in popup.proxy_listen',
  proxyListen: 'clients that send none belong to an address of popup.listen',
  tls: 'a TLS handshake came to a port without TLS: the client has to use port 995, or STLS where it is offered',
} as const

const IDLE_MARGIN_MS = 60_000

/**
 * The first part of each connection of a listener: a PROXY header, a TLS handshake, or the
 * greeting.
 */
type ListenerKind = LoginSettings['listeners'][number]

/** Everything that the sessions of one login process share. */
export class LoginServer implements LoginSessionHost {
  readonly monitor: MonitorRequests
  readonly log: Log
  readonly chains = new ChainConnections()
  settings: LoginSettings
  authenticate: Authenticator
  preamble: LoginSessionHost['preamble']
  stls: TlsContexts | undefined
  /**
   * Made once, because a copy of the settings for every connection took a fifteenth of the CPU time
   * of this process.
   */
  #rules: LoginRules
  readonly #limits: ConnectionLimits
  readonly #shares: SessionShares<LoginSession>
  readonly #engine: Engine
  readonly #handoffs: HandoffSender | undefined
  /**
   * The address whose place each client has taken. A client keeps its place until its socket is
   * closed, here or where it was passed to. A trusted proxy takes none until its client is known.
   */
  readonly #places = new Map<LoginSession, IpAddress | undefined>()
  readonly #beforeLogin = new WaitingConnections<LoginSession>()
  /**
   * Sessions that are over and whose sockets wait until the client has read the last reply; the
   * oldest comes first.
   */
  readonly #lingering = new Set<LoginSession>()
  /** Sessions that are not over. */
  #running = 0
  readonly #hints = new DailyHints()
  #counter = 0
  #drained: (() => void) | undefined

  constructor(settings: LoginSettings, monitor: MonitorRequests, engine: Engine, log: Log) {
    this.settings = settings
    this.monitor = monitor
    this.log = log
    this.#engine = engine
    const handover = settings.handoff ? engine.handover : undefined
    this.#handoffs = handover === undefined ? undefined : new HandoffSender(handover, log)
    this.#shares = new SessionShares(sharesOf(settings), monotonicClock)
    this.#limits = new ConnectionLimits(0, settings.maxPerAddress, customersOf(settings))
    this.authenticate = this.#authenticatorFor(settings)
    this.#rules = rulesOf(settings)
    this.use(settings)
  }

  get loginTime(): number {
    return this.settings.loginTime
  }

  /**
   * Above the worker's limit, so that the worker ends a session first, unless it hangs. The limit
   * of other servers is unknown.
   */
  get idleLimit(): number {
    return this.settings.idleTime + IDLE_MARGIN_MS
  }

  /** Applies other settings to new connections, and to later requests of running ones. */
  use(settings: LoginSettings): void {
    this.settings = settings
    this.authenticate = this.#authenticatorFor(settings)
    this.#shares.use(sharesOf(settings))
    this.#limits.change(0, settings.maxPerAddress, customersOf(settings))
    const { preamble } = settings
    this.preamble = preamble === null ? undefined : { password: new Secret(preamble.password), reply: preamble.reply }
    this.stls = settings.stls === null ? undefined : contextsOf(settings.stls)
    this.#rules = rulesOf(settings)
  }

  /** Accepts from one listening socket, which is the acceptor's from now on. */
  listen(descriptor: number, { proxy, tls }: ListenerKind): Acceptor {
    return this.#engine.accept(
      { descriptor, release: () => closeSync(descriptor) },
      { blocking: false, noDelay: true },
      accepted => {
        const peer = this.#peer(accepted.ends)
        const socket = this.#open(accepted, peer)
        if (socket === undefined) return
        if (proxy) void this.#acceptProxied(socket, peer)
        else if (tls) this.#serve(socket, { ...peer, tls: true }, peer.ip, 'tls')
        else this.#accept(socket, peer)
      },
    )
  }

  #open(accepted: AcceptedSocket, { id, ip }: Client): Connection | undefined {
    try {
      return accepted.open()
    } catch (error) {
      this.log.error('connection_failed', { id, ip, reason: asError(error) })
      return undefined
    }
  }

  get apop(): boolean {
    return this.settings.apop
  }

  timestampFor({ id }: Client): string {
    return formatTimestamp(id, Math.floor(systemClock() / 1000), this.settings.hostname)
  }

  preambleRefused(peer: IpAddress, reason: 'badpass' | 'badhost'): void {
    this.monitor.preambleRefused(peer, reason)
  }

  optionsFor(client: Client): AuthorizationOptions {
    return authorizationOptions(this.#rules, client)
  }

  oldTlsRemedy(ip: IpAddress): string | undefined {
    return this.#hints.isDue(`old ${ip}`)
      ? 'for old devices: add a listener with tls = "old" to sslwrap, and their networks to sslwrap.old_tls_nets'
      : undefined
  }

  anotherProtocol({ id, ip }: Client, protocol: 'PROXY' | 'TLS'): void {
    const isDue = this.#hints.isDue(`${protocol} ${ip}`)
    if (protocol === 'PROXY') {
      const fields = { id, ip, reason: WRONG_ADDRESS.listen }
      if (isDue) this.log.warn('proxy_header_refused', fields)
      else this.log.debug('proxy_header_refused', fields)
    } else {
      const fields = { id, ip, reason: WRONG_ADDRESS.tls }
      if (isDue) this.log.info('tls_refused', fields)
      else this.log.debug('tls_refused', fields)
    }
  }

  /**
   * Frees the session's place and takes one for another address; false if that address is at its
   * limit.
   */
  moveTo(session: LoginSession, { ip }: Client): boolean {
    const before = this.#places.get(session)
    if (before !== undefined) this.#limits.release(before)
    const taken = this.#limits.acquire(ip) === 'ok'
    this.#places.set(session, taken ? ip : undefined)
    if (taken) this.#beforeLogin.add(session, this.#limits.customerOf(ip))
    return taken
  }

  /** The login of the session has succeeded. */
  loggedIn(session: LoginSession): void {
    this.#beforeLogin.delete(session)
  }

  /** The session is over. */
  left(session: LoginSession): void {
    this.#beforeLogin.delete(session)
    if (this.#places.has(session)) this.#lingering.add(session)
    this.#running -= 1
    if (this.#running === 0) this.#drained?.()
  }

  admit(session: LoginSession, login: string, owner: string | undefined): boolean {
    // A server behind does not report the owner, and may open one mailbox under many names. So the
    // customer's network counts in place of the owner.
    const ip = this.#places.get(session)
    const sharer = owner ?? (ip === undefined ? undefined : `network ${this.#limits.customerOf(ip)}`)
    const taken = this.#shares.take(session, login, sharer)
    if (taken === 'ok') return true
    if (taken.isDue) this.log.warn('login_refused', { user: decodeLogin(login), owner: sharer, reason: taken.reason })
    return false
  }

  disconnected(session: LoginSession): void {
    this.#shares.release(session)
    const ip = this.#places.get(session)
    this.#places.delete(session)
    this.#lingering.delete(session)
    if (ip !== undefined) this.#limits.release(ip)
  }

  /** Closes the sessions without a login, and waits for the others. */
  async drain(): Promise<void> {
    for (const session of this.#beforeLogin) session.closeUnlessBusy()
    if (this.#running === 0) return
    await new Promise<void>(resolve => {
      this.#drained = resolve
    })
  }

  #authenticatorFor({ mode, upstream }: LoginSettings): Authenticator {
    if (mode === 'chain') return chainAuthenticator(this.monitor, this.chains, this.log)
    if (mode === 'upstream' && upstream !== null) return upstreamAuthenticator(this.monitor, upstream)
    return monitorAuthenticator(this.monitor, this.#handoffs, this.log)
  }

  #accept(socket: Connection, client: Client): void {
    const isProxy = this.settings.preamble?.trust.has(client.ip) === true
    this.#serve(socket, client, isProxy ? undefined : client.ip)
  }

  async #acceptProxied(socket: Connection, proxy: Client): Promise<void> {
    if (!this.settings.proxyTrust.has(proxy.ip)) {
      this.log.warn('proxy_refused', { ip: proxy.ip, reason: 'not listed in proxy_trust' })
      socket.destroy()
      return
    }
    const read = await readProxyHeaderAndRest(socket)
    if ('reason' in read) {
      // A health check of a load balancer connects and sends nothing; it gets no log line.
      const isWorthALine = read.octets > 0 || (read.isLate && this.#hints.isDue(`late ${proxy.ip}`))
      if (isWorthALine)
        this.log.warn('proxy_refused', { ip: proxy.ip, reason: `${read.reason}: ${WRONG_ADDRESS.proxyListen}` })
      socket.destroy()
      return
    }
    const { header, rest } = read
    const client = this.#clientOf(header, proxy)
    if (client === undefined) {
      this.log.warn('proxy_refused', { ip: proxy.ip, reason: 'the header does not name the client' })
      socket.destroy()
      return
    }
    this.#serve(socket, client, header.kind === 'local' ? undefined : client.ip, 'clear', rest)
  }

  #clientOf(header: ProxyHeader, proxy: Client): Client | undefined {
    // A PROXY header without a client (LOCAL) is a health check. With UNKNOWN the proxy's own
    // address would get a grant.
    if (header.kind === 'local') return proxy
    if (header.kind === 'unknown') return undefined
    const { source, destination, fields } = header
    const { uniqueId } = fields
    return {
      id: uniqueId !== undefined && isSessionId(uniqueId) ? uniqueId : proxy.id,
      ip: source.ip,
      port: source.port,
      localIp: destination.ip,
      localPort: destination.port,
      tls: fields.tls !== undefined || this.settings.proxyTls,
      proxyIp: proxy.ip,
    }
  }

  #peer({ remoteIp, remotePort, localIp, localPort }: Ends): Client {
    return { id: this.#nextId(), ip: remoteIp, port: remotePort, localIp, localPort, tls: false, proxyIp: undefined }
  }

  #nextId(): SessionId {
    this.#counter += 1
    return sessionId(process.pid, this.#counter)
  }

  /**
   * Closes a connection, so that a new one gets its place; false if every client has logged in.
   * Clients cannot block other clients with connections that send nothing, read no replies, or wait
   * out a delay for wrong passwords.
   */
  #makeRoom(): boolean {
    const [lingering] = this.#lingering
    const evicted = lingering ?? this.#beforeLogin.toEvict(session => session.isBusy)
    evicted?.giveWay()
    return evicted !== undefined
  }

  /**
   * `place`: the address that has the place; undefined for a proxy that has not yet named its
   * client. `first`: the connection begins with a TLS handshake, or in clear text.
   */
  #serve(
    socket: Connection,
    client: Client,
    place: IpAddress | undefined,
    first: 'tls' | 'clear' = 'clear',
    readAhead?: Buffer,
  ): void {
    // A client at its limit displaces no other client.
    const hasRoom = place === undefined || this.#limits.customerHasRoom(place)
    const isFull = hasRoom && this.#places.size >= this.settings.maxConnections && !this.#makeRoom()
    if (isFull || (place !== undefined && this.#limits.acquire(place) !== 'ok')) {
      this.log.warn('connection_refused', {
        id: client.id,
        ip: client.ip,
        reason: isFull ? 'max_connections' : 'max_per_address',
      })
      // Before a handshake there is no channel for a reply.
      if (first === 'tls') socket.destroy()
      else {
        socket.write(err(TOO_MANY))
        socket.end()
      }
      return
    }
    this.log.debug('client_connected', { id: client.id, ip: client.ip, proxy: client.proxyIp })
    const session = new LoginSession(this, socket, client)
    this.#running += 1
    this.#places.set(session, place)
    this.#beforeLogin.add(session, place === undefined ? undefined : this.#limits.customerOf(place))
    if (first === 'tls') session.startSecure()
    else session.start(readAhead)
  }
}

const sharesOf = ({ maxPerLogin, maxPerOwner }: LoginSettings): ShareLimits => ({
  perLogin: maxPerLogin,
  perOwner: maxPerOwner,
})

const customersOf = ({ nat64Prefixes }: LoginSettings): CustomerNetworks => new CustomerNetworks(nat64Prefixes.networks)

function rulesOf(settings: LoginSettings): LoginRules {
  const { compat, requireTls, cleartextNets, cleartextLogins, loginDelay, tries, preamble, offersStls } = settings
  return {
    ...{ compat, requireTls, cleartextNets, cleartextLogins, loginDelay, tries },
    preambleTrust: preamble?.trust,
    stls: offersStls,
  }
}

function contextsOf({ cert, key, path, ticketKeys }: NonNullable<LoginSettings['stls']>): TlsContexts {
  return new TlsContexts([parseCertificate(cert, key, path)], { versions: 'modern' }, new TicketKeyRing(ticketKeys))
}
