import { connect, type Socket } from 'node:net'
import { createLog, type Fields } from '../../../src/base/log.ts'
import { duplicateDescriptor } from '../../../src/libc/descriptors.ts'
import { LoginServer } from '../../../src/popup/login/login-server.ts'
import { MonitorRequests } from '../../../src/popup/login/monitor-authenticator.ts'
import { holdListener } from '../../../src/process/listener.ts'
import type { ControlChannel } from '../../../src/process/worker-process.ts'
import type { Engine } from '../../../src/sockets/engine.ts'
import { epollEngine } from '../../../src/sockets/epoll-engine.ts'
import { NetworkSet, parseNetwork } from '../../../src/wire/ip-address.ts'
import type { LoginSettings, ToLogin } from '../../../src/wire/workers/login-process.ts'
import { eventually } from '../eventually.ts'

const networks = (...texts: readonly string[]): NetworkSet =>
  new NetworkSet(texts.flatMap(text => parseNetwork(text) ?? []))

/** Settings of a login process without TLS and without limits that a test reaches. */
export const LOGIN_SETTINGS: LoginSettings = {
  ids: null,
  logLevel: 'debug',
  engine: 'auto',
  handoff: true,
  directory: '/',
  listeners: [],
  mode: 'verify',
  hostname: 'mx.example.org',
  apop: true,
  preamble: null,
  proxyTrust: networks('127.0.0.0/8'),
  proxyTls: false,
  compat: 'none',
  requireTls: false,
  cleartextNets: networks(),
  cleartextLogins: [],
  offersStls: false,
  stls: null,
  loginDelay: 0,
  tries: 3,
  maxConnections: 100,
  maxPerAddress: 100,
  maxPerLogin: 100,
  maxPerOwner: 100,
  nat64Prefixes: networks(),
  loginTime: 60_000,
  idleTime: 60_000,
  upstream: null,
}

/** A message to the monitor that names a request. */
type PasswordRequest = Fields & {
  readonly type: string
  readonly n: number
  readonly login: string
  readonly secret: string
  readonly ip: string
}
type Answer = Exclude<ToLogin, { type: 'settings' | 'drain' }>

const isPasswordRequest = (message: unknown): message is PasswordRequest =>
  typeof message === 'object' && message !== null && Reflect.get(message, 'type') === 'verify'

/** A login process within the test, with its requests to the monitor. */
export class LoginServerForTests {
  readonly server: LoginServer
  readonly lines: string[] = []
  /** Requests to check a password, in order. */
  readonly requests: PasswordRequest[] = []
  /** The monitor's answer to such a request; undefined: the test calls `answer`. */
  decide: ((request: PasswordRequest) => Answer) | undefined
  readonly #monitor: MonitorRequests
  readonly #undo: (() => void)[] = []

  constructor(settings: Partial<LoginSettings> = {}, engine: Engine = epollEngine) {
    const channel: ControlChannel = {
      unsent: 0,
      send: message => {
        if (!isPasswordRequest(message)) return
        this.requests.push(message)
        const { decide } = this
        if (decide !== undefined) setImmediate(() => this.answer(decide(message)))
      },
      onMessage: () => {},
      onClose: () => {},
      close: () => {},
    }
    this.#monitor = new MonitorRequests(channel)
    const log = createLog('popup', { level: 'debug', write: line => this.lines.push(line) })
    this.server = new LoginServer({ ...LOGIN_SETTINGS, ...settings }, this.#monitor, engine, log)
  }

  /** Answers a request as the monitor does. */
  answer(answer: Answer): void {
    this.#monitor.receive(answer)
  }

  /** Listens on a port of the loopback addresses. */
  async listen({ proxy = false, tls = false } = {}): Promise<number> {
    const held = await holdListener({ kind: 'tcp', host: '127.0.0.1', port: 0 }, 'test')
    if (held.address.kind !== 'tcp') throw new Error('no port')
    const acceptor = this.server.listen(duplicateDescriptor(held.descriptor), { proxy, tls })
    held.release()
    this.#undo.push(() => acceptor.close())
    return held.address.port
  }

  /** A client from a loopback address; `output` is the text that it has read. */
  client(port: number, from = '127.0.0.1'): ClientForTests {
    const client = new ClientForTests(connect({ host: '127.0.0.1', port, localAddress: from, allowHalfOpen: true }))
    this.#undo.push(() => client.socket.destroy())
    return client
  }

  stop(): void {
    for (const undo of this.#undo.splice(0)) undo()
  }
}

export class ClientForTests {
  readonly socket: Socket
  output = ''
  ended = false

  constructor(socket: Socket) {
    this.socket = socket
    socket.on('data', chunk => {
      this.output += chunk.toString('latin1')
    })
    socket.on('end', () => {
      this.ended = true
    })
    socket.on('error', () => {
      this.ended = true
    })
  }

  write(text: string | Uint8Array): this {
    this.socket.write(typeof text === 'string' ? Buffer.from(text, 'latin1') : text)
    return this
  }

  /** Fails at once if the connection ends before. */
  async receives(what: RegExp): Promise<this> {
    await eventually(`a client receives ${what}`, () => what.test(this.output) || this.ended)
    if (!what.test(this.output)) throw new Error(`no ${what} before the end: ${JSON.stringify(this.output)}`)
    return this
  }

  async ends(): Promise<this> {
    await eventually('a client is disconnected', () => this.ended)
    return this
  }
}
