/** The engine `node`: sockets as streams of the runtime. */

import { spawn } from 'node:child_process'
import { createServer, Socket } from 'node:net'
import { checkMessages, descriptorOf } from '../base/node-internals.ts'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import { parseSocketIp } from '../wire/ip-address.ts'
import type { Connection } from './connection.ts'
import type { AcceptedSocket, ChannelListener, Ends, Engine, SocketChannel } from './engine.ts'
import { type OpenSocket, OwnedDescriptor } from './owned-descriptor.ts'
import { StreamConnection } from './stream-connection.ts'
import { StreamTwoWaySocket } from './stream-two-way-socket.ts'

/** The same queue length as in src/process/listener.ts. */
const BACKLOG = 4096
/**
 * Sockets that the runtime holds for the other process. The runtime sends one only after the other
 * process has confirmed the one before.
 */
const MAX_PENDING = 64
/** Characters of one message. A longer text is sent in several messages. */
const MAX_MESSAGE = 65_536
/** Octets of a message in the runtime's JSON: at most six for each character, and two quotes. */
const MAX_MESSAGE_OCTETS = 6 * MAX_MESSAGE + 2

/** Uses `node:net` for connections, and the channel of `spawn` for sockets that go to a child. */
export const nodeEngine: Engine = {
  name: 'node',
  handover: undefined,

  accept(listening, { noDelay }, take) {
    const server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay }, socket => {
      const ends = endsOf(socket)
      // A client that has already disconnected has no address.
      if (ends === undefined) socket.destroy()
      else take(new AcceptedStream(socket, ends))
    })
    // The server gets a duplicate, because it closes its descriptor itself.
    server.listen({ fd: duplicateDescriptor(listening.descriptor), backlog: BACKLOG })
    let isClosed = false
    return {
      close: () => {
        if (isClosed) return
        isClosed = true
        server.close()
        listening.release()
      },
    }
  },

  twoWay: (descriptor, listener) => new StreamTwoWaySocket(descriptor, listener),
  twoWayDescriptors: 2,

  startChild({ file, args, environment }, listener) {
    const child = spawn(file, [...args], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'], env: { ...environment } })
    const channel = new MessageChannel(child, listener)
    // The child may be compromised, and its messages must not fill this process.
    if (child.connected) checkMessages(child, MAX_MESSAGE_OCTETS, () => channel.destroy())
    return { child, channel }
  },

  channelToParent: listener => new MessageChannel(process, listener),

  logLimits() {},
}

/** An accepted connection as a stream that is not read yet. */
class AcceptedStream implements AcceptedSocket {
  readonly stream: Socket
  readonly ends: Ends

  constructor(stream: Socket, ends: Ends) {
    this.stream = stream
    this.ends = ends
    // The client may reset the connection before the owner listens for errors.
    stream.on('error', () => stream.destroy())
  }

  get descriptor(): number {
    return descriptorOf(this.stream)
  }

  open(): Connection {
    return new StreamConnection(this.stream, this.stream)
  }

  detach(): OwnedDescriptor {
    const descriptor = new OwnedDescriptor(duplicateDescriptor(this.descriptor))
    this.stream.destroy()
    return descriptor
  }

  close(): void {
    this.stream.destroy()
  }
}

/**
 * A socket that the other process sent. The owner must run a child on it in the same event loop
 * turn: the runtime then stops reading from it.
 */
class ReceivedStream implements OpenSocket {
  readonly stream: Socket

  constructor(stream: Socket) {
    this.stream = stream
    stream.on('error', () => stream.destroy())
  }

  get descriptor(): number {
    return descriptorOf(this.stream)
  }

  close(): void {
    this.stream.destroy()
  }
}

/** The members of a ChildProcess, and of `process` in a child, that belong to the channel. */
type Peer = {
  readonly connected: boolean
  send?:
    | ((
        message: string,
        socket: Socket | undefined,
        options: { keepOpen: boolean },
        done: (error: Error | null) => void,
      ) => boolean)
    | undefined
  disconnect?: (() => void) | undefined
  on(event: 'message', callback: (message: unknown, socket: unknown) => void): unknown
  on(event: 'disconnect', callback: () => void): unknown
}

/** The runtime's channel between a process and its child. A message is a text in Latin-1. */
class MessageChannel implements SocketChannel {
  readonly #peer: Peer
  readonly #listener: ChannelListener
  #pending = 0
  #needsRoom = false
  #isDestroyed = false

  constructor(peer: Peer, listener: ChannelListener) {
    this.#peer = peer
    this.#listener = listener
    peer.on('message', (message, socket) => this.#receive(message, socket))
    peer.on('disconnect', () => {
      if (!this.#isDestroyed) this.#listener.end()
      this.destroy()
    })
  }

  get isDestroyed(): boolean {
    return this.#isDestroyed
  }

  write(text: string): void {
    for (let from = 0; from < text.length; from += MAX_MESSAGE)
      this.#send(text.slice(from, from + MAX_MESSAGE), undefined, () => {})
  }

  lend(socket: OpenSocket, text: string, octets: Uint8Array): boolean {
    if (this.#isDestroyed || !this.#peer.connected) return false
    if (this.#pending >= MAX_PENDING) {
      this.#needsRoom = true
      return false
    }
    const lent = streamOf(socket)
    this.#pending += 1
    this.#send(text + Buffer.from(octets).toString('latin1'), lent.stream, () => {
      lent.release()
      this.#socketSent()
    })
    return true
  }

  end(): void {
    this.destroy()
  }

  destroy(): void {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    if (this.#peer.connected) this.#peer.disconnect?.()
    this.#listener.closed()
  }

  /** Calls `done` after the message, also if the channel does not send it. */
  #send(text: string, socket: Socket | undefined, done: () => void): void {
    if (this.#isDestroyed || !this.#peer.connected) {
      done()
      return
    }
    this.#peer.send?.(text, socket, { keepOpen: true }, error => {
      done()
      if (error !== null) this.destroy()
    })
  }

  #socketSent(): void {
    this.#pending -= 1
    if (!this.#needsRoom || this.#isDestroyed) return
    this.#needsRoom = false
    this.#listener.room?.()
  }

  #receive(message: unknown, socket: unknown): void {
    const received = socket instanceof Socket ? new ReceivedStream(socket) : undefined
    if (this.#isDestroyed || typeof message !== 'string') {
      received?.close()
      if (!this.#isDestroyed) this.destroy()
      return
    }
    this.#listener.data(Buffer.from(message, 'latin1'), received)
  }
}

/**
 * The stream of a socket, for the channel of the runtime, which carries only streams. A bare
 * descriptor gets a stream of a duplicate, which `release` closes.
 */
function streamOf(socket: OpenSocket): { readonly stream: Socket; release(): void } {
  if (socket instanceof AcceptedStream) return { stream: socket.stream, release: () => {} }
  // The stream must not read, because the octets are for the process that gets the socket.
  const stream = new Socket({ fd: duplicateDescriptor(socket.descriptor), readable: false })
  stream.on('error', () => stream.destroy())
  return { stream, release: () => stream.destroy() }
}

function endsOf({ remoteAddress, remotePort, localAddress, localPort }: Socket): Ends | undefined {
  const [remoteIp, localIp] = [parseSocketIp(remoteAddress), parseSocketIp(localAddress)]
  if (remoteIp === undefined || localIp === undefined || remotePort === undefined || localPort === undefined) return
  return { remoteIp, remotePort, localIp, localPort }
}
