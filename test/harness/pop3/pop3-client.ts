import type { Duplex } from 'node:stream'

/** Limit for one answer of a server. */
const ANSWER_LIMIT_MS = 15_000

/** A POP3 client for tests: sends lines and reads replies. Each character is one octet. */
export class Pop3Client {
  readonly #socket: Duplex
  #received = ''
  #closed = false
  #wake: () => void = () => {}

  constructor(socket: Duplex) {
    this.#socket = socket
    socket.on('data', (chunk: Buffer) => {
      this.#received += chunk.toString('latin1')
      this.#wake()
    })
    const close = () => {
      this.#closed = true
      this.#wake()
    }
    // A server may also close a connection with a reset.
    socket.on('end', close).on('close', close).on('error', close)
  }

  /** The next line of the server, without CRLF. */
  line(): Promise<string> {
    return this.#until('\r\n')
  }

  /** A multi-line response: the first line, and the other lines without byte-stuffing. */
  async multiline(): Promise<{ first: string; lines: readonly string[] }> {
    const first = await this.line()
    if (!first.startsWith('+OK')) return { first, lines: [] }
    const lines: string[] = []
    for (let line = await this.line(); line !== '.'; line = await this.line()) {
      lines.push(line.startsWith('.') ? line.slice(1) : line)
    }
    return { first, lines }
  }

  /** All octets up to and including the line with a single dot, unchanged. */
  async textToDot(): Promise<string> {
    const end = (): number =>
      this.#received.startsWith('.\r\n') ? 3 : this.#received.indexOf('\r\n.\r\n') + '\r\n.\r\n'.length
    const isThere = (): boolean => this.#received.startsWith('.\r\n') || this.#received.includes('\r\n.\r\n')
    await this.#wait(() => isThere() || this.#closed)
    if (!isThere()) throw new Error(`the server closed within a text: ${JSON.stringify(this.#received.slice(-200))}`)
    const text = this.#received.slice(0, end())
    this.#received = this.#received.slice(text.length)
    return text
  }

  /** Sends a line and reads the first line of the answer. */
  async say(line: string): Promise<string> {
    this.write(`${line}\r\n`)
    return this.line()
  }

  write(octets: string): void {
    this.#socket.write(Buffer.from(octets, 'latin1'))
  }

  /** All octets until the server closes the connection. */
  async rest(): Promise<string> {
    await this.#wait(() => this.#closed)
    return this.#received
  }

  end(): void {
    this.#socket.end()
  }

  async #until(mark: string): Promise<string> {
    await this.#wait(() => this.#received.includes(mark) || this.#closed)
    const at = this.#received.indexOf(mark)
    if (at < 0) throw new Error(`the server closed; its last octets: ${JSON.stringify(this.#received)}`)
    const text = this.#received.slice(0, at)
    this.#received = this.#received.slice(at + mark.length)
    return text
  }

  async #wait(isThere: () => boolean): Promise<void> {
    const end = Date.now() + ANSWER_LIMIT_MS
    while (!isThere()) {
      const { promise, resolve } = Promise.withResolvers<void>()
      this.#wake = resolve
      const timer = setTimeout(resolve, Math.max(0, end - Date.now()))
      await promise
      clearTimeout(timer)
      if (Date.now() >= end && !isThere()) throw new Error(`no answer; so far: ${JSON.stringify(this.#received)}`)
    }
  }
}
