import type { Duplex } from 'node:stream'
import { countAssertion } from '../runner/assertion-count.ts'

/**
 * A line that the peer sent, without its line end, and the time at which it came (milliseconds of
 * performance.now).
 */
export type ReceivedLine = { readonly text: string; readonly at: number }

/**
 * A dialogue of lines over a socket. It is recorded, so that a failure shows it as `C:` and `S:`
 * lines. Every wait has a deadline.
 */
export class Conversation {
  readonly #stream: Duplex
  readonly #transcript: string[] = []
  readonly #received: ReceivedLine[] = []
  #rest = ''
  #ended = false
  #wake: () => void = () => {}

  constructor(name: string, stream: Duplex) {
    this.#stream = stream
    this.#transcript.push(`-- ${name}`)
    stream.on('data', (chunk: Buffer) => {
      const at = performance.now()
      const lines = (this.#rest + chunk.toString('latin1')).split('\n')
      this.#rest = lines.pop() ?? ''
      for (const line of lines) {
        const text = line.replace(/\r$/, '')
        this.#transcript.push(`S: ${text}`)
        this.#received.push({ text, at })
      }
      this.#wake()
    })
    const end = (why: string) => (): void => {
      if (this.#ended) return
      this.#ended = true
      this.#transcript.push(`-- ${why}${this.#rest === '' ? '' : `, after ${JSON.stringify(this.#rest)}`}`)
      this.#wake()
    }
    stream.once('end', end('closed by the server'))
    stream.once('close', end('closed'))
    stream.once('error', (error: Error) => end(`closed: ${error.message}`)())
  }

  get transcript(): string {
    return this.#transcript.join('\n')
  }

  /** Sends octets unchanged; returns the time. */
  write(text: string): number {
    for (const line of text.replace(/\r\n$/, '').split('\r\n')) this.#transcript.push(`C: ${line}`)
    const at = performance.now()
    this.#stream.write(Buffer.from(text, 'latin1'))
    return at
  }

  /** Sends one line. */
  say(line: string): number {
    return this.write(`${line}\r\n`)
  }

  /** Waits for the next line, which must match. */
  async expect(pattern: RegExp, deadlineMs = 30_000): Promise<ReceivedLine> {
    const line = await this.next(deadlineMs)
    if (line === undefined) throw this.#failure(`expected ${pattern}, but the connection was closed`)
    if (!pattern.test(line.text)) throw this.#failure(`expected ${pattern}, but received ${JSON.stringify(line.text)}`)
    countAssertion()
    return line
  }

  /** Sends a line and waits for the reply, which must match. */
  ask(line: string, pattern: RegExp): Promise<ReceivedLine> {
    this.say(line)
    return this.expect(pattern)
  }

  /** Reads lines up to a single dot and removes the dot-stuffing (RFC 1939 §3). */
  async expectLinesToDot(): Promise<readonly string[]> {
    const lines: string[] = []
    for (;;) {
      const { text } = await this.expect(/^/)
      if (text === '.') return lines
      lines.push(text.replace(/^\./, ''))
    }
  }

  /** Reads the reply of an SMTP server: its lines up to the line with a space behind the code. */
  async expectSmtp(pattern: RegExp): Promise<readonly string[]> {
    const lines: string[] = []
    for (;;) {
      const { text } = await this.expect(pattern)
      lines.push(text)
      if (text[3] !== '-') return lines
    }
  }

  /** Waits until the server closes the connection; fails if it sends anything before. */
  async expectEnd(deadlineMs?: number): Promise<void> {
    const line = await this.next(deadlineMs)
    if (line !== undefined) throw this.#failure(`expected the end, but received ${JSON.stringify(line.text)}`)
    countAssertion()
  }

  /** The next line, or undefined at the end of the connection. */
  async next(deadlineMs = 30_000): Promise<ReceivedLine | undefined> {
    let late = false
    const timer = setTimeout(() => {
      late = true
      this.#wake()
    }, deadlineMs)
    try {
      for (;;) {
        const line = this.#received.shift()
        if (line !== undefined || this.#ended) return line
        if (late) throw this.#failure(`no line within ${deadlineMs} ms`)
        await new Promise<void>(resolve => {
          this.#wake = resolve
        })
      }
    } finally {
      clearTimeout(timer)
    }
  }

  close(): void {
    this.#stream.destroy()
  }

  #failure(what: string): Error {
    return new Error(`${what}\n${this.transcript}`)
  }
}
