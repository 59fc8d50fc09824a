import { spawnSync } from 'node:child_process'
import { chmodSync, writeFileSync } from 'node:fs'
import { createServer, type Server, type Socket } from 'node:net'
import type { LogLine } from '../processes/log-line.ts'
import { Program } from '../processes/program.ts'
import { temporaryDirectory } from '../temporary-directory.ts'

const SSLWRAP = new URL('../../../dist/sslwrap.js', import.meta.url).pathname
export const sslwrapCommand = (...args: readonly string[]): string[] => [process.execPath, SSLWRAP, ...args]

/** The password that sslwrap and the back end share in the tests. */
export const SHARED_PASSWORD = 'a secret: of two'

/**
 * Makes a certificate with the openssl command, so that the certificate does not depend on the code
 * under test.
 */
export function makeCertificate(
  path: string,
  options: { names: readonly string[]; type?: 'ec' | 'rsa'; ca?: string; days?: number },
): void {
  const key = options.type === 'rsa' ? ['rsa:2048'] : ['ec', '-pkeyopt', 'ec_paramgen_curve:P-256']
  const names = options.names.map(name => `DNS:${name}`).join()
  const result = spawnSync('openssl', [
    ...['req', '-x509', '-newkey', ...key, '-nodes', '-keyout', `${path}.key`, '-out', `${path}.crt`],
    ...['-days', String(options.days ?? 90), '-subj', `/CN=${options.names[0]}`, '-addext', `subjectAltName=${names}`],
    ...(options.ca === undefined
      ? []
      : ['-CA', `${options.ca}.crt`, '-CAkey', `${options.ca}.key`, '-addext', 'basicConstraints=CA:FALSE']),
  ])
  if (result.status !== 0) throw new Error(result.stderr.toString())
  chmodSync(`${path}.key`, 0o600)
}

/** One connection to a back end, with the octets that it received. */
export type Received = {
  text: string
  ended: boolean
  /** The server stays open after the client's end. */
  staysOpen: boolean
  readonly socket: Socket
}

/**
 * A server behind sslwrap that is controlled by the test and records the octets that it receives.
 */
export class BackEnd {
  readonly received: Received[] = []
  readonly server: Server
  port = 0

  /**
   * The server calls `greet` for each connection, and `say` for each piece of data that it
   * receives.
   */
  constructor(greet: (socket: Socket) => void, onText: (text: string, received: Received) => void = () => {}) {
    this.server = createServer({ allowHalfOpen: true, noDelay: true }, socket => {
      const received: Received = { text: '', ended: false, staysOpen: false, socket }
      this.received.push(received)
      socket.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        received.text += chunk.toString('latin1')
        onText(chunk.toString('latin1'), received)
      })
      socket.on('end', () => {
        received.ended = true
        if (!received.staysOpen) socket.end()
      })
      greet(socket)
    })
  }

  async listen(): Promise<this> {
    await new Promise<void>(resolve => this.server.listen(0, '127.0.0.1', resolve))
    const address = this.server.address()
    this.port = address === null || typeof address === 'string' ? 0 : address.port
    return this
  }

  close(): void {
    this.server.close()
    for (const { socket } of this.received) socket.destroy()
  }
}

export const GREETING = '+OK <7f3a.12.1764000000@mx.example.org>'

/**
 * A back end that accepts the SSL command as popup does: as the first line, with the right
 * password, once. After that it is a small POP3 server.
 */
export function popupLike(): BackEnd {
  const isIntroduced = new WeakSet<Socket>()
  return new BackEnd(
    socket => socket.write(`${GREETING}\r\n`),
    (text, { socket }) => {
      for (const line of text.split('\r\n').slice(0, -1)) {
        if (line === 'QUIT') socket.end('+OK bye\r\n')
        else if (line === 'CAPA') socket.write('+OK\r\nUSER\r\n.\r\n')
        else if (line === 'LIST') socket.write('+OK\r\n1 120\r\n.\r\n')
        else if (!line.startsWith('SSL ')) socket.write(`+OK received ${line}\r\n`)
        else if (isIntroduced.has(socket)) socket.write('-ERR authorization first\r\n')
        else if (line.endsWith(`:${SHARED_PASSWORD}`)) socket.write('+OK \r\n')
        else socket.end('-ERR authorization failed\r\n')
        isIntroduced.add(socket)
      }
    },
  )
}

export type SslwrapOptions = {
  /** Lines of `[[sslwrap.listener]]` tables. `listen` defaults to a free port of 127.0.0.1. */
  readonly listeners: readonly Readonly<Record<string, string>>[]
  /** Lines of `[sslwrap]`, unchanged. */
  readonly settings?: string
  readonly certificate?: { readonly names: readonly string[]; readonly type?: 'ec' | 'rsa' }
}

/** A running sslwrap with its own directory. */
export class Sslwrap {
  readonly directory = temporaryDirectory()
  readonly program: Program
  ports: readonly number[] = []

  constructor({ listeners, settings = '', certificate = { names: ['mx.example.org'] } }: SslwrapOptions) {
    const { path } = this.directory
    makeCertificate(`${path}/tls`, certificate)
    writeFileSync(`${path}/pass`, `${SHARED_PASSWORD}\n`, { mode: 0o600 })
    const tables = listeners.map(listener =>
      [
        '[[sslwrap.listener]]',
        ...Object.entries({ listen: '127.0.0.1:0', ...listener }).map(([k, v]) => `${k} = ${JSON.stringify(v)}`),
      ].join('\n'),
    )
    writeFileSync(
      `${path}/auth-relay.toml`,
      [
        'configured = true',
        'log_level = "debug"',
        `[popup]\nssl_hack_pass = "${path}/pass"`,
        `[sslwrap]\nuser = "64321"\ncert = "${path}/tls.crt"\nkey = "${path}/tls.key"`,
        ...(/^workers/m.test(settings) ? [] : ['workers = 1']),
        settings.replaceAll('$DIR', path),
        ...tables.map(table => table.replaceAll('$DIR', path)),
      ].join('\n'),
    )
    this.program = new Program('sslwrap', sslwrapCommand('--config', `${path}/auth-relay.toml`))
  }

  static async start(options: SslwrapOptions): Promise<Sslwrap> {
    const sslwrap = new Sslwrap(options)
    const ready = await sslwrap.program.waitForLine(/^sslwrap ready /)
    sslwrap.ports = [...ready.matchAll(/listen=\S*:(\d+)/g)].map(([, port]) => Number(port))
    return sslwrap
  }

  get port(): number {
    return this.ports[0] ?? 0
  }

  /** Waits for a log line of this event whose fields hold these values. */
  event(event: string, fields: Readonly<Record<string, string>> = {}): Promise<LogLine['fields']> {
    return this.program.waitFor(`event ${event} ${JSON.stringify(fields)}`, () => {
      const wanted = Object.entries({ ...fields, event })
      return this.program.log.find(line => wanted.every(([key, value]) => line.fields[key] === value))?.fields
    })
  }

  async stop(): Promise<void> {
    await this.program.stop(20_000)
    this.directory.remove()
  }
}

/** Starts sslwrap and servers behind it. `stops` receives the functions that end them. */
export const startingSslwrap = (stops: (() => unknown)[]) => ({
  async start(...options: Parameters<typeof Sslwrap.start>): Promise<Sslwrap> {
    const sslwrap = await Sslwrap.start(...options)
    stops.push(() => sslwrap.stop())
    return sslwrap
  },
  async backEnd(made: BackEnd): Promise<BackEnd> {
    await made.listen()
    stops.push(() => made.close())
    return made
  },
})
