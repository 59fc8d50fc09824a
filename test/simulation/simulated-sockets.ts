import { EventEmitter } from 'node:events'
import type { Random } from './random.ts'
import type { VirtualTime } from './virtual-time.ts'

/**
 * Unix sockets of a simulation, in place of `connect` and `createServer` of node:net. Octets arrive
 * in order, late and in pieces. A connection that is cut delivers a part of the octets in flight
 * and then ends.
 *
 * `handle`: the handle of a real Unix socket of this process, because services read the account of
 * their peer from the kernel.
 */
export class SimulatedSockets {
  readonly #time: VirtualTime
  readonly #random: Random
  readonly #handle: unknown
  readonly #servers = new Map<string, SimulatedServer>()
  readonly #open = new Set<SimulatedSocket>()
  #newest: SimulatedServer | undefined
  /** Longest delay of a piece, in milliseconds. */
  delayMs = 2

  constructor(time: VirtualTime, random: Random, handle: unknown) {
    this.#time = time
    this.#random = random
    this.#handle = handle
  }

  /** As net.createServer. The server accepts connections after it is published. */
  createServer(_options: unknown, accept: (socket: SimulatedSocket) => void): SimulatedServer {
    this.#newest = new SimulatedServer(this, accept)
    return this.#newest
  }

  /** The newest server listens at the path and replaces the previous one. */
  publishNewest(path: string): void {
    if (this.#newest !== undefined) this.#servers.set(path, this.#newest)
  }

  withdraw(server: SimulatedServer): void {
    for (const [path, known] of this.#servers) if (known === server) this.#servers.delete(path)
  }

  /** As net.connect. */
  connect({ path }: { readonly path: string }): SimulatedSocket {
    const near = this.#socket()
    this.#later(() => {
      const server = this.#servers.get(path)
      if (near.destroyed) return
      if (server === undefined) {
        near.destroy(new Error(`connect ENOENT ${path}`))
        return
      }
      const far = this.#socket()
      near.join(far)
      far.join(near)
      server.accept(far)
      near.emit('connect')
    })
    return near
  }

  /** Cuts every connection: only a part of the octets in flight arrives. */
  cutAll(): void {
    for (const socket of this.#open) socket.cut(this.#random.fraction())
  }

  /** For SimulatedSocket. */
  get delay(): number {
    return this.#random.fraction() * this.delayMs
  }

  get pieceIsSplit(): boolean {
    return this.#random.isTrue(0.05)
  }

  after(milliseconds: number, callback: () => void): void {
    this.#time.after(milliseconds, callback)
  }

  get now(): number {
    return this.#time.now
  }

  closed(socket: SimulatedSocket): void {
    this.#open.delete(socket)
  }

  #later(callback: () => void): void {
    this.#time.after(this.delay, callback)
  }

  #socket(): SimulatedSocket {
    const socket = new SimulatedSocket(this, this.#handle)
    this.#open.add(socket)
    return socket
  }
}

export class SimulatedServer {
  readonly #sockets: SimulatedSockets
  readonly #accept: (socket: SimulatedSocket) => void

  constructor(sockets: SimulatedSockets, accept: (socket: SimulatedSocket) => void) {
    this.#sockets = sockets
    this.#accept = accept
  }

  accept(socket: SimulatedSocket): void {
    this.#accept(socket)
  }

  close(): this {
    this.#sockets.withdraw(this)
    return this
  }
}

/** The part of net.Socket that the services use. */
export class SimulatedSocket extends EventEmitter {
  readonly _handle: unknown
  readonly #sockets: SimulatedSockets
  #peer: SimulatedSocket | undefined
  /** Octets that were sent to this socket and that it has not read. */
  #arriving: Buffer[] = []
  #lastArrival = 0
  #isPaused = false
  #peerHasEnded = false
  #hasEnded = false
  destroyed = false
  readonly writableNeedDrain = false

  constructor(sockets: SimulatedSockets, handle: unknown) {
    super()
    this.#sockets = sockets
    this._handle = handle
  }

  join(peer: SimulatedSocket): void {
    this.#peer = peer
  }

  get writable(): boolean {
    return !this.destroyed && !this.#hasEnded
  }

  write(text: string | Buffer): boolean {
    if (this.writable) this.#peer?.send(Buffer.from(text))
    return true
  }

  /** Octets in flight to this socket. */
  send(octets: Buffer): void {
    const middle = octets.length > 1 && this.#sockets.pieceIsSplit ? octets.length >> 1 : 0
    for (const piece of middle > 0 ? [octets.subarray(0, middle), octets.subarray(middle)] : [octets]) {
      this.#arriving.push(piece)
      this.#lastArrival = Math.max(this.#sockets.now, this.#lastArrival) + this.#sockets.delay
      this.#sockets.after(this.#lastArrival - this.#sockets.now, () => this.#read())
    }
  }

  pause(): this {
    this.#isPaused = true
    return this
  }

  resume(): this {
    this.#isPaused = false
    this.#sockets.after(0, () => this.#read())
    return this
  }

  isPaused(): boolean {
    return this.#isPaused
  }

  end(): this {
    if (this.#hasEnded) return this
    this.#hasEnded = true
    const peer = this.#peer
    this.#sockets.after(this.#sockets.delay, () => peer?.peerEnded())
    if (this.#peerHasEnded) this.destroy()
    return this
  }

  peerEnded(): void {
    if (this.destroyed || this.#peerHasEnded) return
    this.#peerHasEnded = true
    if (this.#arriving.length > 0) this.#read()
    this.emit('end')
    if (this.#hasEnded || this.listenerCount('end') === 0) this.destroy()
  }

  destroy(error?: Error): this {
    if (this.destroyed) return this
    this.destroyed = true
    this.#sockets.closed(this)
    const peer = this.#peer
    this.#sockets.after(this.#sockets.delay, () => peer?.peerGone())
    this.#sockets.after(0, () => {
      if (error !== undefined) this.emit('error', error)
      this.emit('close')
    })
    return this
  }

  peerGone(): void {
    this.destroy()
  }

  /** The connection breaks; this share of the octets in flight still arrives. */
  cut(share: number): void {
    if (this.destroyed) return
    const rest = Buffer.concat(this.#arriving)
    this.#arriving = rest.length === 0 ? [] : [rest.subarray(0, Math.floor(rest.length * share))]
    this.#isPaused = false
    while (this.#arriving.length > 0) this.#read()
    this.destroy()
  }

  #read(): void {
    if (this.destroyed || this.#isPaused) return
    const piece = this.#arriving.shift()
    if (piece !== undefined && piece.length > 0) this.emit('data', piece)
  }
}
