/**
 * The resident gate: from an accepted SMTP connection to the end of its smtpd.
 *
 * A connection passes these steps in order, and each step can end it:
 *
 * 1. The acceptor gives a socket from which nothing was read, because the smtpd must get the first
 *    octet of the client.
 * 2. If the peer is a trusted proxy, its header is read exactly to its end. It names the client.
 * 3. The client takes a place in the limits, or gets a banner with 421.
 * 4. The host name is looked up, if the settings require it. The rules of the site can deny the
 *    client, or open the relay without a query.
 * 5. The decision: a query to the store with a time limit. An error or a late answer is a negative
 *    decision, so that the smtpd accepts mail for local domains and the relay stays closed.
 * 6. The smtpd starts with the variables of the connection. A front stands only before clients that
 *    may relay. The smtpd then gets one end of a socket pair, and the front has the other end and
 *    the client.
 * 7. The place is free again when the smtpd has ended, and when the front has closed its sockets.
 *
 * A socket has one owner. `#serve` owns it until `#start` returns, and closes it after each error.
 * Then the smtpd or the front owns it, and the gate has no descriptor of the connection.
 */
import { writeSync } from 'node:fs'
import { asError } from '../../base/errors.ts'
import type { Log } from '../../base/log.ts'
import type { RelayGrant } from '../../grants/devices/mail-rules.ts'
import { ConnectionLimits } from '../../process/connection-limits.ts'
import type { AcceptedSocket, Acceptor, Engine, ListeningSocket } from '../../sockets/engine.ts'
import { type OpenSocket, OwnedDescriptor } from '../../sockets/owned-descriptor.ts'
import { readProxyHeaderExactly } from '../../sockets/proxy-header.ts'
import type { OpenTwoWay } from '../../sockets/two-way-socket.ts'
import {
  CONNECTION_VARIABLES,
  changeEnvironment,
  connectionLines,
  type Environment,
  type EnvironmentChanges,
  formatEnvironment,
  type UcspiConnection,
} from '../../ucspi/environment.ts'
import { type ConnectionProgram, type InetdChild, InetdProgram, SpawnedProgram } from '../../ucspi/inetd-child.ts'
import type { CustomerNetworks } from '../../wire/customer-networks.ts'
import type { IpAddress, NetworkSet } from '../../wire/ip-address.ts'
import { type Decision, logDecision, logPreset, relayVariables, UNNAMED_CLIENT } from '../decision.ts'
import type { SmtpFront } from '../front/smtp-front.ts'
import type { ReverseDns } from './reverse-dns.ts'
import type { TcpRulesFile } from './tcp-rules-file.ts'

export type ResidentGateOptions = {
  /** Engine of the connections. It does not change with other options. */
  readonly engine: Engine
  /** Path of the smtpd, and its argv. */
  readonly file: string
  readonly argv: readonly string[]
  /** Makes the program that starts the smtpd: a starter under another account, or this process. */
  readonly programOf?: (
    file: string,
    argv: readonly string[],
    environment: readonly (string | Uint8Array)[],
  ) => ConnectionProgram
  /** Environment of every smtpd, without secrets. */
  readonly environment: Environment
  readonly relayclientValue: string
  readonly decide: (ip: IpAddress) => Promise<Decision>
  /**
   * Called once for each connection that was decided. The address is undefined if the proxy did not
   * name its client.
   */
  readonly onDecision: (ip: IpAddress | undefined, decision: Decision) => void
  readonly log: Log
  readonly rules?: TcpRulesFile | undefined
  readonly reverseDns?: ReverseDns | undefined
  /** Peers that must begin with a PROXY header. Other peers must not. */
  readonly proxyTrust: NetworkSet
  readonly maxConnections: number
  readonly maxPerAddress: number
  /** Decides which connections count together for `maxPerAddress`. */
  readonly customers: CustomerNetworks
  /** Opens a front between a granted client and its smtpd. Undefined: no front. */
  readonly front?: OpenFront | undefined
}

/**
 * Opens a front between the client's socket and one end of a socket pair, with the smtpd at the
 * other end. Throws as the constructor of SmtpFront.
 */
export type OpenFront = (client: OpenTwoWay, server: OpenTwoWay, session: FrontSession) => SmtpFront

export type FrontSession = { readonly ip: IpAddress; readonly grant: RelayGrant; readonly pid: number }

const BUSY = '421 too many connections, try again later (#4.3.2)\r\n'
const BUSY_ADDRESS = '421 too many connections from your address (#4.7.0)\r\n'
const NO_VARIABLES: Environment = {}
const NO_NAMES: readonly string[] = []
/** Keeps the relay closed even if a rule or the environment opens it. */
const CLOSED: EnvironmentChanges = { RELAYCLIENT: undefined }
const CANNOT_RUN = '421 unable to run smtpd (#4.3.0)\r\n'
/** Time for the last replies of the fronts to reach their clients. */
const LAST_REPLIES_MS = 1_000

/**
 * Accepts SMTP connections without reading from them, decides whether the client may relay, and
 * runs the smtpd on the connection. The gate replaces tcpserver and auth-wrap. After an error the
 * smtpd runs without RELAYCLIENT.
 */
export class ResidentGate {
  #options: ResidentGateOptions
  readonly #limits: ConnectionLimits
  readonly #acceptors: Acceptor[] = []
  #smtpd: Smtpd
  readonly #fronts = new Set<SmtpFront>()
  #idle: (() => void) | undefined

  constructor(options: ResidentGateOptions) {
    this.#options = options
    this.#smtpd = new Smtpd(options)
    this.#limits = new ConnectionLimits(options.maxConnections, options.maxPerAddress, options.customers)
  }

  /**
   * Applies the options to new connections. Connections with a running smtpd keep their options and
   * still count.
   */
  reconfigure(options: ResidentGateOptions): void {
    this.#smtpd = new Smtpd(options)
    this.#options = options
    this.#limits.change(options.maxConnections, options.maxPerAddress, options.customers)
  }

  /** Accepts from a listening socket, which the gate owns from now on. */
  listen(socket: ListeningSocket): void {
    this.#acceptors.push(
      this.#options.engine.accept(socket, { blocking: true, noDelay: false }, accepted => {
        void this.#serve(accepted)
      }),
    )
  }

  /** Number of connections with an smtpd, or before its start. */
  get connections(): number {
    return this.#limits.total
  }

  /** Stops accepting. */
  close(): void {
    for (const acceptor of this.#acceptors) acceptor.close()
  }

  /**
   * Stops accepting and waits for every smtpd to end, at most until the deadline. Smtpds that still
   * run go on, as under tcpserver. Sessions behind the front end with 421, because the front is
   * part of this process.
   */
  async drain(deadlineMs: number): Promise<void> {
    this.close()
    await this.#untilIdle(deadlineMs)
    if (this.#fronts.size === 0) return
    for (const front of this.#fronts) front.endSession('stopped', '421 4.3.2 the server is restarted, try again later')
    await this.#untilIdle(LAST_REPLIES_MS)
  }

  async #untilIdle(deadlineMs: number): Promise<void> {
    if (this.connections === 0) return
    const { promise, resolve } = Promise.withResolvers<void>()
    this.#idle = resolve
    const timer = setTimeout(resolve, deadlineMs)
    await promise
    clearTimeout(timer)
  }

  /** Every path must close the socket. */
  async #serve(socket: AcceptedSocket): Promise<void> {
    const connection = socket.ends
    const { log, maxConnections } = this.#options
    const peer = connection.remoteIp
    const isProxy = this.#options.proxyTrust.has(peer)
    // A proxy takes no place, because its address does not show how many connections a client has.
    const first = this.#acquire(socket, peer, isProxy)
    if (!first) return
    let client = peer
    let taken = !isProxy
    let isOurs = true
    try {
      const served = isProxy ? await readProxiedConnection(socket, connection) : { connection, isNamed: true }
      client = served.connection.remoteIp
      if (isProxy) {
        taken = this.#acquire(socket, client, false)
        if (!taken) return
      }
      const connections = `${this.connections}/${maxConnections}`
      const started = await this.#start(socket, served)
      isOurs = false
      if (started !== undefined) await this.#follow(started, served, connections)
    } catch (error) {
      log.error('connection_failed', { ip: client, reason: asError(error) })
      if (isOurs) this.#refuse(socket, client, CANNOT_RUN)
    } finally {
      if (taken) this.#limits.release(client)
      if (this.connections === 0) this.#idle?.()
    }
  }

  /** Takes a place for the client, or refuses it with a banner. A proxy takes no place. */
  #acquire(socket: AcceptedSocket, ip: IpAddress, isProxy: boolean): boolean {
    if (isProxy) return true
    const answer = this.#limits.acquire(ip)
    if (answer === 'ok') return true
    this.#options.log.warn('connection_refused', {
      ip,
      reason: answer === 'total' ? 'max_connections' : 'max_per_address',
      connections: this.connections,
    })
    this.#refuse(socket, ip, answer === 'total' ? BUSY : BUSY_ADDRESS)
    return false
  }

  /** Sends a banner with the reason and closes the socket. */
  #refuse(socket: AcceptedSocket, ip: IpAddress, banner: string): void {
    try {
      socket.open().end(banner)
    } catch (error) {
      this.#options.log.error('connection_failed', { ip, reason: asError(error) })
    }
  }

  /**
   * Runs the smtpd on the connection and closes the gate's descriptor. Returns undefined if a rule
   * denies the connection, or if the front cannot be opened; the connection is then closed.
   */
  async #start(socket: AcceptedSocket, { connection, isNamed }: Served): Promise<Started | undefined> {
    const { rules, reverseDns, relayclientValue, log } = this.#options
    const ip = connection.remoteIp
    const host = reverseDns === undefined ? undefined : await reverseDns(ip)
    const rule = rules?.find({ ip, host })
    if (rule?.allow === false) {
      log.info('client_denied', { ip, host })
      socket.close()
      return undefined
    }
    const ruled = rule === undefined ? NO_VARIABLES : rule.environment
    const own = connectionLines(host === undefined ? connection : { ...connection, remoteHost: host })
    if (isNamed && (this.#smtpd.relayIsPreset || ruled['RELAYCLIENT'] !== undefined))
      return { child: await this.#smtpd.run(socket, ruled, own), decision: undefined, host }
    const decision = isNamed ? await this.#options.decide(ip) : UNNAMED_CLIENT
    if (decision.relay)
      for (const [name, value] of Object.entries(relayVariables(decision, relayclientValue)))
        own.push(`${name}=${value}`)
    const { front: openFront } = this.#options
    if (decision.relay && openFront !== undefined) {
      const started = await this.#startBehind(openFront, socket, { ip, grant: decision }, ruled, own)
      return started === undefined ? undefined : { ...started, decision, host }
    }
    // A rule for the proxy's address, or an environment that opens the relay for all clients, does
    // not apply to a client without a name.
    const child = isNamed
      ? await this.#smtpd.run(socket, ruled, own)
      : await this.#smtpd.run(socket, changeEnvironment(ruled, CLOSED), own, Object.keys(CLOSED))
    return { child, decision, host }
  }

  /** Runs the smtpd on one end of a socket pair, and opens a front before the other end. */
  async #startBehind(
    openFront: OpenFront,
    socket: AcceptedSocket,
    session: Omit<FrontSession, 'pid'>,
    ruled: Environment,
    own: readonly string[],
  ): Promise<{ readonly child: InetdChild; readonly front: SmtpFront } | undefined> {
    const { engine, log } = this.#options
    const [near, far] = OwnedDescriptor.pair()
    let client: OwnedDescriptor | undefined
    try {
      const child = await this.#smtpd.run(far, ruled, own)
      const detached = socket.detach()
      client = detached
      const front = openFront(
        listener => engine.twoWay(detached, listener),
        listener => engine.twoWay(near, listener),
        { ...session, pid: child.pid },
      )
      this.#fronts.add(front)
      return { child, front }
    } catch (error) {
      for (const end of [near, far]) if (end.isOwned) end.close()
      if (client === undefined) throw error
      log.error('connection_failed', { ip: session.ip, reason: asError(error) })
      refuseDetached(client)
      return undefined
    }
  }

  /** Logs the decision, and at the end the status of the smtpd. */
  async #follow({ child, decision, host, front }: Started, served: Served, connections: string): Promise<void> {
    const { log, onDecision } = this.#options
    const { connection, isNamed } = served
    const ip = connection.remoteIp
    const fields = { ip, port: connection.remotePort, host, pid: child.pid, connections }
    if (decision === undefined) logPreset(log, fields)
    else {
      logDecision(log, decision, front === undefined ? fields : { ...fields, front: true })
      onDecision(isNamed ? ip : undefined, decision)
    }
    const ending = await child.ended
    const how = ending === undefined ? { status: 'unknown' } : 'code' in ending ? { status: ending.code } : ending
    log.info('smtpd_ended', { pid: child.pid, ...how })
    if (front === undefined) return
    await front.closed
    this.#fronts.delete(front)
  }
}

/** Sends a banner to a client whose socket no engine watches, and closes the socket. */
function refuseDetached(client: OwnedDescriptor): void {
  try {
    writeSync(client.descriptor, CANNOT_RUN)
  } catch {
    // The client has closed the connection.
  } finally {
    client.close()
  }
}

/** A connection. `isNamed` is false if its ends are those of a proxy that named no client. */
type Served = { readonly connection: UcspiConnection; readonly isNamed: boolean }

type Started = {
  readonly child: InetdChild
  /** Undefined: a rule or the gate's environment opened the relay without a query. */
  readonly decision: Decision | undefined
  readonly host: string | undefined
  readonly front?: SmtpFront
}

/** The smtpd with the environment that all connections share. */
class Smtpd {
  /** The environment without the variables of a connection. */
  readonly #environment: Environment
  readonly #program: ConnectionProgram
  readonly relayIsPreset: boolean

  constructor({ file, argv, environment, engine, programOf = ownProgramOf(engine) }: ResidentGateOptions) {
    this.#environment = changeEnvironment(environment, without(CONNECTION_VARIABLES))
    this.#program = programOf(file, argv, formatEnvironment(this.#environment))
    this.relayIsPreset = environment['RELAYCLIENT'] !== undefined
  }

  /**
   * `ruled`: variables of a rule, which replace those of the gate. `own`: `NAME=value` strings of
   * the connection. `dropped`: names of the gate's variables that the smtpd does not get.
   */
  run(
    socket: OpenSocket,
    ruled: Environment,
    own: readonly string[],
    dropped: readonly string[] = NO_NAMES,
  ): Promise<InetdChild> {
    // Fast path: most connections have no rule, and allocations for each connection are expensive.
    if (ruled === NO_VARIABLES && dropped === NO_NAMES) return this.#program.run(socket, own)
    const taken = [...Object.keys(ruled), ...dropped].filter(name => Object.hasOwn(this.#environment, name))
    return this.#program.run(socket, [...formatEnvironment(ruled), ...own], taken)
  }
}

const ownProgramOf =
  ({ name }: Engine): NonNullable<ResidentGateOptions['programOf']> =>
  (...program) =>
    name === 'node' ? new SpawnedProgram(...program) : new InetdProgram(...program)

const without = (names: readonly string[]): EnvironmentChanges =>
  Object.fromEntries(names.map(name => [name, undefined]))

/**
 * Returns the ends that the proxy announces. For a health check or an unknown client these are the
 * proxy's own ends, and the client is not named. Rejects if no valid header comes in time.
 */
async function readProxiedConnection({ descriptor }: AcceptedSocket, own: UcspiConnection): Promise<Served> {
  const read = await readProxyHeaderExactly(descriptor)
  if ('reason' in read) throw new Error(read.reason)
  const { header } = read
  if (header.kind !== 'proxied') return { connection: own, isNamed: false }
  const { source, destination } = header
  const connection = {
    remoteIp: source.ip,
    remotePort: source.port,
    localIp: destination.ip,
    localPort: destination.port,
  }
  return { connection, isNamed: true }
}
