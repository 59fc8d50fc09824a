/**
 * Lines of a local syslogd over TCP as a login source: its place on loopback, and an end that loses
 * no line.
 */
import { createServer, type Server, type Socket } from 'node:net'
import type { Log } from '../base/log.ts'
import { openListener } from '../process/listener.ts'
import { requireLoopback, type SocketAddress } from '../process/socket-address.ts'
import { SyslogFraming } from '../syslog/syslog-framing.ts'
import type { Counters } from './counters.ts'
import type { GrantQueue } from './grant-queue.ts'
import type { LoginSources } from './login-sources.ts'

export type SyslogListenerOptions = {
  readonly sources: Pick<LoginSources, 'acceptLine'>
  /** TCP can wait: while the queue is full, lines stay with the sender. */
  readonly queue: Pick<GrantQueue, 'hasRoom' | 'room'>
  readonly counters: Counters
  readonly log: Log
}

const MAX_CONNECTIONS = 64
/** Milliseconds without input after which a connection is closed at the end of authd. */
const QUIET_MS = 1000
/** The longest time that the connections are read at the end, in milliseconds. */
const LAST_LINES_MS = 5000

/**
 * Takes lines from a local rsyslog (omfwd) or syslog-ng by TCP. The senders are not authenticated.
 * The listener is on loopback alone, and accounts of this host can write to the log socket anyway.
 */
export class SyslogListener {
  readonly #options: SyslogListenerOptions
  readonly #servers: Server[] = []
  /** The first connection has been silent longest. */
  readonly #open = new Set<Socket>()
  #closing = false

  constructor(options: SyslogListenerOptions) {
    this.#options = options
  }

  /**
   * Listens on one more address; returns the bound address. @throws UsageFault for an address that
   * is not loopback.
   */
  async listen(address: SocketAddress): Promise<SocketAddress> {
    requireLoopback(address, 'authd.syslog_listen')
    const server = createServer(socket => this.#accept(socket))
    this.#servers.push(server)
    return openListener(server, address, 'authd.syslog_listen')
  }

  /**
   * Ends every connection without losing a line. A connection that is closed with lines unread
   * loses them, because no syslogd detects the loss. So authd first ends its output, which rsyslog
   * reads before it writes the next line. authd then reads until the other side has ended or is
   * quiet.
   */
  async close(): Promise<void> {
    this.#closing = true
    for (const server of this.#servers) server.close()
    const ended = [...this.#open].map(
      socket =>
        new Promise<void>(resolve => {
          socket.once('close', () => resolve())
          socket.setTimeout(QUIET_MS, () => socket.destroy())
          socket.resume()
          socket.end()
        }),
    )
    const deadline = setTimeout(() => {
      for (const socket of this.#open) socket.destroy()
    }, LAST_LINES_MS)
    await Promise.all(ended)
    clearTimeout(deadline)
  }

  #accept(socket: Socket): void {
    const framing = new SyslogFraming()
    this.#open.add(socket)
    this.#makeRoom()
    socket.on('data', chunk => {
      this.#open.delete(socket)
      this.#open.add(socket)
      this.#receive(socket, framing, chunk)
    })
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#open.delete(socket))
  }

  /**
   * Any account of this host can connect. The most silent connection is closed, so that connections
   * left open do not block a syslogd.
   */
  #makeRoom(): void {
    if (this.#open.size <= MAX_CONNECTIONS) return
    const [silent] = this.#open
    if (silent === undefined) return
    this.#open.delete(silent)
    silent.destroy()
    this.#options.log.warn('syslog_connection_closed', {
      connections: MAX_CONNECTIONS,
      reason: 'the most silent one was closed',
    })
  }

  #receive(socket: Socket, framing: SyslogFraming, chunk: Buffer): void {
    const { sources, queue, counters, log } = this.#options
    const { lines, overlong, isInvalid } = framing.push(chunk)
    counters.overlong.tcp += overlong
    for (const line of lines) sources.acceptLine('tcp', line)
    if (isInvalid) {
      log.warn('syslog_framing_invalid', { reason: 'neither octet counting nor lines (RFC 6587): connection closed' })
      socket.destroy()
    } else if (!queue.hasRoom && !this.#closing) {
      socket.pause()
      void queue.room().then(() => socket.resume())
    }
  }
}
