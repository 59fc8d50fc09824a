import { once } from 'node:events'
import { createServer, type Server, type Socket } from 'node:net'

/**
 * The scripted server's answer to one statement. Rows are texts or null, in the order of the
 * columns.
 */
export type ScriptedReply = {
  readonly columns?: readonly { readonly name: string; readonly type: keyof typeof TYPES }[]
  readonly rows?: readonly (readonly (string | null)[])[]
  readonly notices?: readonly Readonly<Record<string, string>>[]
  /** SQLSTATE and message of an error in place of the rows. */
  readonly error?: { readonly code: string; readonly message: string }
  /** The server never answers. */
  readonly silent?: boolean
  /** The connection is closed after the notices. */
  readonly hangUp?: boolean
}

/** Object identifiers of pg_type. */
const TYPES = { bool: 16, int8: 20, int4: 23, text: 25, jsonb: 3802, timestamptz: 1184 } as const

/**
 * A server with the part of PostgreSQL's protocol (manual, chapter 55) that node-postgres needs. A
 * function of the test answers each statement. The server does not ask for a password.
 */
export class ScriptedPostgres {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  /** Every statement, in the order of arrival. */
  readonly statements: string[] = []
  /** Cancel requests (manual, section 55.2.8). */
  cancelRequests = 0
  connections = 0
  reply: (text: string) => ScriptedReply | Promise<ScriptedReply>

  private constructor(reply: (text: string) => ScriptedReply | Promise<ScriptedReply>) {
    this.reply = reply
    this.#server = createServer(socket => this.#serve(socket))
  }

  static async start(reply: (text: string) => ScriptedReply | Promise<ScriptedReply>): Promise<ScriptedPostgres> {
    const scripted = new ScriptedPostgres(reply)
    scripted.#server.listen(0, '127.0.0.1')
    await once(scripted.#server, 'listening')
    return scripted
  }

  get port(): number {
    const address = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    return address.port
  }

  close(): void {
    this.#server.close()
    for (const socket of this.#sockets) socket.destroy()
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket)
    socket.on('error', () => {}).on('close', () => this.#sockets.delete(socket))
    const session = new Session(socket, this)
    socket.on('data', chunk => session.read(chunk))
  }
}

class Session {
  readonly #socket: Socket
  readonly #server: ScriptedPostgres
  #buffer = Buffer.alloc(0)
  #started = false
  #text = ''
  readonly #named = new Map<string, string>()
  #work: Promise<void> = Promise.resolve()

  constructor(socket: Socket, server: ScriptedPostgres) {
    this.#socket = socket
    this.#server = server
  }

  read(chunk: Buffer): void {
    this.#buffer = Buffer.concat([this.#buffer, chunk])
    for (;;) {
      const head = this.#started ? 1 : 0
      if (this.#buffer.length < head + 4) return
      const length = this.#buffer.readInt32BE(head)
      if (this.#buffer.length < head + length) return
      const type = this.#started ? String.fromCharCode(this.#buffer[0] ?? 0) : 'startup'
      const body = this.#buffer.subarray(head + 4, head + length)
      this.#buffer = this.#buffer.subarray(head + length)
      this.#work = this.#work.then(() => this.#message(type, body))
      if (type === 'startup' && body.readInt32BE(0) === 196_608) this.#started = true
    }
  }

  async #message(type: string, body: Buffer): Promise<void> {
    switch (type) {
      case 'startup':
        if (body.readInt32BE(0) === 80_877_102) {
          this.#server.cancelRequests += 1
          this.#socket.end()
          return
        }
        this.#server.connections += 1
        this.#send('R', int32(0))
        this.#send('S', text('server_version'), text('15.0'))
        this.#send('K', int32(4711), int32(1))
        this.#ready()
        return
      case 'Q':
        await this.#answer(body.subarray(0, -1).toString(), true)
        this.#ready()
        return
      case 'P': {
        const [name = '', statement = ''] = body.toString().split('\0')
        this.#named.set(name, statement)
        this.#send('1')
        return
      }
      case 'B': {
        const [, name = ''] = body.toString('latin1').split('\0')
        this.#text = this.#named.get(name) ?? ''
        this.#send('2')
        return
      }
      case 'E':
        await this.#answer(this.#text, false)
        return
      case 'S':
        this.#ready()
        return
      case 'X':
        this.#socket.end()
        return
      default:
        return // the answer to Describe contains the rows; nothing else is sent
    }
  }

  async #answer(statement: string, simple: boolean): Promise<void> {
    this.#server.statements.push(statement)
    const { columns = [], rows = [], notices = [], error, silent, hangUp } = await this.#server.reply(statement)
    // Later messages of this session wait too.
    if (silent === true) return new Promise(() => {})
    for (const notice of notices) this.#send('N', fields(notice))
    if (hangUp === true) {
      this.#socket.destroy()
      return
    }
    if (error !== undefined) {
      this.#send('E', fields({ S: 'ERROR', V: 'ERROR', C: error.code, M: error.message }))
      return
    }
    if (columns.length > 0) {
      const described = columns.map(({ name, type }) =>
        Buffer.concat([text(name), int32(0), int16(0), int32(TYPES[type]), int16(-1), int32(-1), int16(0)]),
      )
      this.#send('T', int16(columns.length), ...described)
    } else if (!simple) this.#send('n')
    for (const row of rows) {
      const values = row.map(value =>
        value === null ? int32(-1) : Buffer.concat([int32(Buffer.byteLength(value)), Buffer.from(value)]),
      )
      this.#send('D', int16(row.length), ...values)
    }
    this.#send('C', text(statement.trim().split(/\s/, 1)[0] ?? ''))
  }

  #ready(): void {
    this.#send('Z', Buffer.from('I'))
  }

  #send(type: string, ...parts: readonly Buffer[]): void {
    const body = Buffer.concat(parts)
    this.#socket.write(Buffer.concat([Buffer.from(type), int32(body.length + 4), body]))
  }
}

const int32 = (n: number): Buffer => {
  const buffer = Buffer.alloc(4)
  buffer.writeInt32BE(n)
  return buffer
}
const int16 = (n: number): Buffer => {
  const buffer = Buffer.alloc(2)
  buffer.writeInt16BE(n)
  return buffer
}
const text = (value: string): Buffer => Buffer.from(`${value}\0`)
const fields = (values: Readonly<Record<string, string>>): Buffer =>
  Buffer.concat([...Object.entries(values).map(([key, value]) => text(`${key}${value}`)), Buffer.from('\0')])
