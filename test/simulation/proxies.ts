/**
 * Clients behind a proxy, in virtual time: popup's login process and the resident gate read the
 * header of each connection and decide about the client that it names.
 */
import { writeSync } from 'node:fs'
import type { Log } from '../../src/base/log.ts'
import type { LoginRequest, LoginResult, WorkerSession } from '../../src/popup/login/authenticator.ts'
import { LoginServer } from '../../src/popup/login/login-server.ts'
import { MonitorRequests } from '../../src/popup/login/monitor-authenticator.ts'
import type { ControlChannel } from '../../src/process/worker-process.ts'
import type { Connection, ConnectionListener } from '../../src/sockets/connection.ts'
import type { AcceptedSocket, AcceptOptions, Acceptor, Engine, ListeningSocket } from '../../src/sockets/engine.ts'
import { OwnedDescriptor } from '../../src/sockets/owned-descriptor.ts'
import type { ConnectionProgram, ConnectionSocket, InetdChild } from '../../src/ucspi/inetd-child.ts'
import type { CustomerNetworks } from '../../src/wire/customer-networks.ts'
import { type IpAddress, NetworkSet, parseIpAddress, parseNetwork } from '../../src/wire/ip-address.ts'
import { formatProxyLocal, formatProxyV1, formatProxyV2 } from '../../src/wire/preamble.ts'
import type { Decision } from '../../src/wrap/decision.ts'
import { ResidentGate } from '../../src/wrap/gate/resident-gate.ts'
import { LOGIN_SETTINGS } from '../harness/pop3/login-server.ts'
import { type Header, PROXIES, type Proxied } from './plan.ts'
import type { Random } from './random.ts'
import type { VirtualTime } from './virtual-time.ts'

/** A peer without a trust, a login or an allowance. */
export const UNLISTED = '203.0.113.66'

/** Bugs in the reading of headers and in the trust of their senders. */
export type ProxyMutant =
  | 'popup takes UNKNOWN for the proxy'
  | 'popup swaps the ends of a header'
  | 'popup trusts every peer'
  | 'the gate repeats the last name'
  | 'the gate swaps the ends of a header'
  | 'the gate trusts every peer'
  | 'the gate relays for its proxies'

type Mutants = { has(mutant: ProxyMutant): boolean }

const ipOf = (text: string): IpAddress => {
  const ip = parseIpAddress(text)
  if (ip === undefined) throw new Error(`not an address: ${text}`)
  return ip
}
const networks = (...texts: readonly string[]): NetworkSet =>
  new NetworkSet(texts.map(parseNetwork).filter(network => network !== undefined))

const TRUSTED_PROXIES = networks(...PROXIES)
const EVERY_PEER = networks('0.0.0.0/0', '::/0')

/**
 * The address that counts for a connection: undefined if its header names no client, or if its peer
 * may not name one.
 */
export function clientOf({ header, proxy, ip }: Proxied): IpAddress | undefined {
  switch (header) {
    case 'version 1':
    case 'version 2':
      return ipOf(ip)
    case 'itself':
    case 'LOCAL':
      return ipOf(proxy)
    case 'UNKNOWN':
    case 'UNSPEC':
    case 'unlisted':
      return undefined
  }
}

const peerOf = ({ header, proxy }: Proxied): IpAddress => ipOf(header === 'unlisted' ? UNLISTED : proxy)

/** A header of version 2 for a connection of no known family (`AF_UNSPEC`). */
function formatProxyWithoutFamily(): Buffer {
  const head = formatProxyLocal()
  head[12] = 0x21
  return head
}

/** A connection reaches the service at the address of the proxy. */
function headerOctets(header: Header, client: IpAddress, proxy: IpAddress, swaps: boolean): Uint8Array {
  const ends = [
    { ip: client, port: 40_000 },
    { ip: proxy, port: 110 },
  ] as const
  const [source, destination] = swaps ? [ends[1], ends[0]] : ends
  switch (header) {
    case 'version 1':
      return Buffer.from(formatProxyV1(source, destination))
    case 'version 2':
    case 'unlisted':
      return formatProxyV2(source, destination)
    case 'itself':
      return formatProxyV2(ends[1], ends[1])
    case 'LOCAL':
      return formatProxyLocal()
    case 'UNKNOWN':
      return Buffer.from('PROXY UNKNOWN\r\n')
    case 'UNSPEC':
      return formatProxyWithoutFamily()
  }
}

const namesNoClient = (header: Header): boolean => header === 'UNKNOWN' || header === 'UNSPEC'

/** An engine that accepts what the test gives it. */
class SimulatedEngine implements Engine {
  readonly name = 'node'
  readonly handover = undefined
  readonly twoWayDescriptors = 0
  take: (socket: AcceptedSocket) => void = () => {}

  accept(_listening: ListeningSocket, _options: AcceptOptions, take: (socket: AcceptedSocket) => void): Acceptor {
    this.take = take
    return { close: () => {} }
  }

  twoWay(): never {
    throw new Error('the simulation has no front')
  }

  startChild(): never {
    throw new Error('the simulation has no children')
  }

  channelToParent(): never {
    throw new Error('the simulation has no parent')
  }

  logLimits(): void {}
}

const endsOf = (remoteIp: IpAddress): AcceptedSocket['ends'] => ({
  remoteIp,
  remotePort: 50_000,
  localIp: ipOf('192.0.2.1'),
  localPort: 110,
})

/** A client's connection. Its octets arrive late, in pieces. */
class SimulatedConnection implements Connection {
  readonly #time: VirtualTime
  readonly #random: Random
  #listener: ConnectionListener | undefined
  readonly #arrived: Buffer[] = []
  readonly #onClosed: (() => void)[] = []
  readonly unsent = 0
  isPaused = true
  isDestroyed = false

  constructor(time: VirtualTime, random: Random) {
    this.#time = time
    this.#random = random
  }

  /** The client sends octets, in two pieces. */
  send(octets: Buffer): void {
    const middle = this.#random.below(octets.length)
    const first = this.#random.fraction() * 5
    this.#time.after(first, () => this.#arrive(octets.subarray(0, middle)))
    this.#time.after(first + this.#random.fraction() * 5, () => this.#arrive(octets.subarray(middle)))
  }

  listen(listener: ConnectionListener | undefined): void {
    this.#listener = listener
    if (this.isDestroyed) listener?.closed()
  }

  pause(): void {
    this.isPaused = true
  }

  resume(): void {
    this.isPaused = false
    this.#time.after(0, () => this.#deliver())
  }

  write(): void {}

  async writeChunk(): Promise<boolean> {
    return !this.isDestroyed
  }

  readAtMost(): void {}

  onceClosed(callback: () => void): void {
    if (this.isDestroyed) queueMicrotask(callback)
    else this.#onClosed.push(callback)
  }

  onIdle(): void {}

  end(): void {
    this.destroy()
  }

  destroy(): void {
    if (this.isDestroyed) return
    this.isDestroyed = true
    for (const callback of this.#onClosed.splice(0)) callback()
    this.#listener?.closed()
  }

  toStream(): never {
    throw new Error('the simulation relays no session')
  }

  handOver(give: (descriptor: number) => boolean): boolean {
    if (!give(-1)) return false
    this.isDestroyed = true
    this.#onClosed.length = 0
    return true
  }

  #arrive(octets: Buffer): void {
    if (octets.length > 0) this.#arrived.push(octets)
    this.#deliver()
  }

  #deliver(): void {
    while (!this.isPaused && !this.isDestroyed && this.#listener !== undefined) {
      const octets = this.#arrived.shift()
      if (octets === undefined) return
      this.#listener.data(octets)
    }
  }
}

/** A login at popup's login process, from the client of the header. `accept`: +OK goes out. */
export type ProxiedLogin = { readonly client: IpAddress; readonly accept: () => void }

type PopupParts = {
  readonly time: VirtualTime
  readonly random: Random
  readonly customers: CustomerNetworks
  readonly mutants: Mutants
  readonly log: Log
}

/** popup's login process with an address of `proxy_listen`. The monitor is the test's. */
export class ProxiedPopup {
  readonly #engine = new SimulatedEngine()
  readonly #server: LoginServer
  readonly #parts: PopupParts
  /** Logins by password: each login has another password. */
  readonly #asked = new Map<string, (login: ProxiedLogin) => void>()

  constructor(parts: PopupParts) {
    this.#parts = parts
    this.#server = new LoginServer(this.#settings, new MonitorRequests(NO_MONITOR), this.#engine, parts.log)
    this.#server.authenticate = request => this.#authenticate(request)
    this.#server.listen(-1, { proxy: true, tls: false })
  }

  /** As after SIGHUP. */
  reload(): void {
    this.#server.use(this.#settings)
    this.#server.authenticate = request => this.#authenticate(request)
  }

  /**
   * A connection whose peer sends a header, and then a login. `asked` is called if the login
   * process accepts the client and asks the monitor about this login.
   */
  connect(login: string, password: string, proxied: Proxied, asked: (login: ProxiedLogin) => void): void {
    const { time, random, mutants } = this.#parts
    const isMistaken = namesNoClient(proxied.header) && mutants.has('popup takes UNKNOWN for the proxy')
    const header = headerOctets(
      isMistaken ? 'itself' : proxied.header,
      ipOf(proxied.ip),
      ipOf(proxied.proxy),
      mutants.has('popup swaps the ends of a header'),
    )
    this.#asked.set(password, asked)
    const connection = new SimulatedConnection(time, random)
    connection.onceClosed(() => this.#asked.delete(password))
    this.#engine.take({
      ends: endsOf(peerOf(proxied)),
      open: () => connection,
      descriptor: -1,
      detach: notOpen,
      close: () => connection.destroy(),
    })
    connection.send(Buffer.concat([header, Buffer.from(`USER ${login}\r\nPASS ${password}\r\n`)]))
  }

  get #settings(): typeof LOGIN_SETTINGS {
    const { mutants } = this.#parts
    return {
      ...LOGIN_SETTINGS,
      handoff: false,
      proxyTrust: mutants.has('popup trusts every peer') ? EVERY_PEER : TRUSTED_PROXIES,
      maxConnections: 1000,
    }
  }

  #authenticate({ secret, client }: LoginRequest): Promise<LoginResult> {
    return new Promise(resolve => {
      const asked = this.#asked.get(secret)
      this.#asked.delete(secret)
      asked?.({ client: client.ip, accept: () => resolve({ kind: 'maildrop', worker: this.#worker }) })
    })
  }

  /** A worker that takes the connection and ends the session after a second. */
  readonly #worker: WorkerSession = {
    owner: 'owner',
    pass: (client, _readAhead, ended) => {
      this.#parts.time.after(1000, ended)
      return client.handOver(() => true)
    },
    bridge: () => undefined,
    connect: async () => ({ kind: 'closed' }),
  }
}

const NO_MONITOR: ControlChannel = {
  unsent: 0,
  send: () => {},
  onMessage: () => {},
  onClose: () => {},
  close: () => {},
}

function notOpen(): never {
  throw new Error('the simulation has no such socket')
}

/** The client of an smtpd that the gate started, and its relay. */
export type StartedSmtpd = { readonly client: string | undefined; readonly relay: boolean }

type GateParts = {
  readonly decide: (ip: IpAddress) => Promise<Decision>
  readonly customers: CustomerNetworks
  readonly mutants: Mutants
  readonly log: Log
}

/** The resident gate in front of an smtpd that reads no octet. */
export class ProxiedGate {
  readonly #engine = new SimulatedEngine()
  readonly #gate: ResidentGate
  readonly #mutants: Mutants
  readonly #started = new Map<ConnectionSocket, (smtpd: StartedSmtpd) => void>()
  /** The last header that named a client. */
  #lastName: Uint8Array | undefined

  constructor({ decide, customers, mutants, log }: GateParts) {
    this.#mutants = mutants
    const relaysForProxies = mutants.has('the gate relays for its proxies')
    this.#gate = new ResidentGate({
      engine: this.#engine,
      file: '/bin/smtpd',
      argv: ['smtpd'],
      programOf: () => this.#program,
      environment: {},
      relayclientValue: '',
      decide: async ip =>
        relaysForProxies && TRUSTED_PROXIES.has(ip) ? { relay: true, until: undefined, login: undefined } : decide(ip),
      onDecision: () => {},
      log,
      proxyTrust: mutants.has('the gate trusts every peer') ? EVERY_PEER : TRUSTED_PROXIES,
      maxConnections: 0,
      maxPerAddress: 0,
      customers,
    })
    this.#gate.listen({ descriptor: -1, release: () => {} })
  }

  /** The smtpd of one connection; undefined if none was started. */
  connect(proxied: Proxied): Promise<StartedSmtpd | undefined> {
    const [near, far] = OwnedDescriptor.pair()
    writeSync(near.descriptor, this.#octetsOf(proxied))
    near.close()
    return new Promise(resolve => {
      const socket: AcceptedSocket = {
        ends: endsOf(peerOf(proxied)),
        get descriptor() {
          return far.descriptor
        },
        open: notOpen,
        detach: notOpen,
        close: () => {
          far.close()
          this.#started.delete(socket)
          resolve(undefined)
        },
      }
      this.#started.set(socket, resolve)
      this.#engine.take(socket)
    })
  }

  close(): void {
    this.#gate.close()
  }

  #octetsOf({ header, proxy, ip }: Proxied): Uint8Array {
    const swaps = this.#mutants.has('the gate swaps the ends of a header')
    const octets = headerOctets(header, ipOf(ip), ipOf(proxy), swaps)
    const isNamed = header === 'version 1' || header === 'version 2'
    if (isNamed) this.#lastName = octets
    else if (header !== 'unlisted' && header !== 'itself' && this.#mutants.has('the gate repeats the last name'))
      return this.#lastName ?? octets
    return octets
  }

  readonly #program: ConnectionProgram = {
    run: async (socket, environment): Promise<InetdChild> => {
      const variables = new Map(environment.map(variable => splitOnce(String(variable))))
      this.#started.get(socket)?.({
        client: variables.get('TCPREMOTEIP'),
        relay: variables.has('RELAYCLIENT'),
      })
      socket.close()
      return { pid: 1, ended: Promise.resolve({ code: 0 }) }
    },
  }
}

function splitOnce(variable: string): readonly [string, string] {
  const at = variable.indexOf('=')
  return [variable.slice(0, at), variable.slice(at + 1)]
}
