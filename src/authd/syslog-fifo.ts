/**
 * The FIFO of a syslogd as a login source: it is read without a wait for the store, because a
 * syslogd drops lines when the FIFO is full.
 */
import { statSync } from 'node:fs'
import { Socket } from 'node:net'
import { asError } from '../base/errors.ts'
import type { Log } from '../base/log.ts'
import { type OpenFifo, openFifo } from '../process/fifo.ts'
import { MAX_SYSLOG_LINE } from '../syslog/syslog-line.ts'
import { LineSplitter } from '../wire/lines.ts'
import type { Counters } from './counters.ts'
import type { LoginSources } from './login-sources.ts'

export type SyslogFifoOptions = {
  readonly path: string
  readonly sources: Pick<LoginSources, 'acceptLine'>
  readonly counters: Counters
  readonly log: Log
}

/** Octets taken in one read: a full pipe at its usual largest size. */
const READ_OCTETS = 1_048_576
/** Octets that are parsed between two reads of the pipe. */
const SLICE_OCTETS = 65_536
/** Octets that are read and not yet parsed. Above this number parsing goes before reading. */
const MAX_BACKLOG_OCTETS = 67_108_864
/** Milliseconds between two checks whether the FIFO was replaced. */
const LOOK_AGAIN_MS = 5000

/**
 * The FIFO that a syslogd writes to. authd reads it at once and never waits for the store, because
 * a syslogd blocks or drops lines when the FIFO is full. A full FIFO is counted and logged, because
 * lines may then be lost.
 */
export class SyslogFifo {
  readonly #options: SyslogFifoOptions
  #splitter = new LineSplitter(MAX_SYSLOG_LINE)
  #fifo: OpenFifo
  #socket: Socket
  readonly #timer: NodeJS.Timeout
  #readInTurn = 0
  readonly #backlog: Buffer[] = []
  #backlogOctets = 0
  #isClosed = false

  /** @throws UsageFault if the FIFO is missing. */
  constructor(options: SyslogFifoOptions) {
    this.#options = options
    this.#fifo = openFifo(options.path, 'syslog_fifo')
    this.#socket = this.#read(this.#fifo.fd)
    this.#timer = setInterval(() => this.#reopenIfReplaced(), LOOK_AGAIN_MS).unref()
  }

  get capacity(): number {
    return this.#fifo.capacity
  }

  close(): void {
    this.#isClosed = true
    clearInterval(this.#timer)
    this.#socket.destroy()
    while (this.#backlog.length > 0) this.#nextSlice()
  }

  #read(fd: number): Socket {
    const buffer = Buffer.allocUnsafe(READ_OCTETS)
    const socket = new Socket({
      fd,
      readable: true,
      writable: false,
      onread: {
        buffer,
        callback: octets => {
          this.#receive(buffer.subarray(0, octets))
          return true
        },
      },
    })
    socket.on('error', error => {
      this.#options.log.error('fifo_failed', { reason: error })
      setTimeout(() => this.#reopen(), 1000).unref()
    })
    socket.resume()
    return socket
  }

  #receive(chunk: Buffer): void {
    this.#watchFilling(chunk.length)
    this.#backlogOctets += chunk.length
    if (this.#backlog.length === 0) setImmediate(() => this.#work())
    for (let at = 0; at < chunk.length; at += SLICE_OCTETS)
      this.#backlog.push(Buffer.from(chunk.subarray(at, at + SLICE_OCTETS)))
    while (this.#backlogOctets > MAX_BACKLOG_OCTETS) this.#nextSlice()
  }

  /**
   * Parses a slice of the octets that were read, then reads the pipe again. Reading never waits for
   * more than one slice.
   */
  #work(): void {
    this.#nextSlice()
    if (this.#backlog.length > 0) setImmediate(() => this.#work())
  }

  #nextSlice(): void {
    const slice = this.#backlog.shift()
    if (slice === undefined) return
    this.#backlogOctets -= slice.length
    const { sources, counters } = this.#options
    const { lines, overlong } = this.#splitter.push(slice)
    counters.overlong.fifo += overlong
    for (const line of lines) sources.acceptLine('fifo', line)
  }

  /** The octets of one event loop turn arrived since the previous turn. */
  #watchFilling(octets: number): void {
    if (this.#readInTurn === 0) setImmediate(() => this.#endOfTurn())
    this.#readInTurn += octets
  }

  #endOfTurn(): void {
    const wasFull = this.#readInTurn >= this.#fifo.capacity * 0.9
    this.#readInTurn = 0
    if (!wasFull) return
    const { counters, log, path } = this.#options
    counters.fifoFull += 1
    // Log only occurrence 1, 10, 100, …, so that a flood of lines does not flood the log.
    if (/^10*$/.test(String(counters.fifoFull))) {
      log.warn('fifo_full', {
        path,
        times: counters.fifoFull,
        reason: 'syslogd may have dropped lines: deliver by TCP instead (syslog_listen)',
      })
    }
  }

  #reopenIfReplaced(): void {
    const inode = inodeOf(this.#options.path)
    if (inode !== undefined && (inode !== this.#fifo.inode || this.#socket.destroyed)) this.#reopen()
  }

  /** If the FIFO cannot be opened, the next check tries again. The other sources continue. */
  #reopen(): void {
    if (this.#isClosed) return
    try {
      const fifo = openFifo(this.#options.path, 'syslog_fifo')
      this.#socket.destroy()
      while (this.#backlog.length > 0) this.#nextSlice()
      this.#splitter = new LineSplitter(MAX_SYSLOG_LINE)
      this.#fifo = fifo
      this.#socket = this.#read(fifo.fd)
      this.#options.log.info('fifo_reopened', { path: this.#options.path })
    } catch (error) {
      this.#options.log.error('fifo_missing', { reason: asError(error) })
    }
  }
}

/**
 * Undefined if the FIFO is missing, or if this account may not enter its directory. The open FIFO
 * is used then.
 */
function inodeOf(path: string): number | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false })?.ino
  } catch {
    return undefined
  }
}
