import type { ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import type { Log } from '../base/log.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { Connection, HalfClosable } from './connection.ts'
import type { OpenSocket } from './owned-descriptor.ts'

export const ENGINES = ['node', 'epoll'] as const
/**
 * `node`: streams of the runtime. `epoll`: descriptors in an epoll instance (README.md of this
 * room).
 */
export type EngineName = (typeof ENGINES)[number]

/** Such as a BoundSocket. */
export type ListeningSocket = { readonly descriptor: number; release(): void }

/** The ends of a TCP connection. */
export type Ends = {
  readonly remoteIp: IpAddress
  readonly remotePort: number
  readonly localIp: IpAddress
  readonly localPort: number
}

/**
 * A connection just accepted, from which nothing has been read. Its holder opens it, closes it, or
 * has a child run on it.
 */
export interface AcceptedSocket extends OpenSocket {
  readonly ends: Ends
  /**
   * The connection for the dialogue; the holder no longer owns the socket. Throws if the engine
   * cannot watch it, and it is closed then.
   */
  open(): Connection
  /** The descriptor, which is the caller's from now on. */
  detach(): number
}

export type AcceptOptions = {
  /** For a program that is started on the connection and does not handle EAGAIN. */
  readonly blocking: boolean
  /** Output is sent at once (TCP_NODELAY, tcp(7)). */
  readonly noDelay: boolean
}

export interface Acceptor {
  /** Accepts no more, and releases the listening socket. */
  close(): void
}

/** Callbacks of the owner of a channel. */
export type ChannelListener = {
  /**
   * In order. `socket` came with some of the octets and is the listener's; null: this process had
   * no room for it.
   */
  data(octets: Buffer, socket: OpenSocket | null | undefined): void
  /** The other end sends nothing more. */
  end(): void
  /** There is room again, after `lend` had none. */
  room?(): void
  /** Closed, by either side; no callback follows. */
  closed(): void
}

/**
 * One end of a connection between two processes of this project, which carries open sockets and
 * octets.
 */
export interface SocketChannel {
  readonly isDestroyed: boolean
  /** Sends a text, one octet per character. */
  write(text: string): void
  /**
   * Sends a socket, which stays open here, with a text and octets behind it. False, and nothing has
   * happened, if that cannot be done at once.
   */
  lend(socket: OpenSocket, text: string, octets: Uint8Array): boolean
  /** Ends the output, and continues to read. */
  end(): void
  destroy(): void
}

/**
 * Handing client connections over to a process that is not a child of this one (SCM_RIGHTS,
 * unix(7)).
 */
export interface Handover {
  /** Connects to the Unix socket at `path`. Throws SystemCallError. */
  connect(path: string, listener: ChannelListener): HandoverChannel
  /**
   * The connection of a stream, which is destroyed. The stream must have no unread octets of the
   * other end.
   */
  from(stream: Socket, listener: ChannelListener): HandoverChannel
  /**
   * The connection of a socket that another process sent; the error if the engine cannot watch it;
   * undefined if it is no stream
   * socket. Unless it is a connection the socket is closed.
   */
  adopt(socket: OpenSocket): Connection | Error | undefined
}

export interface HandoverChannel extends SocketChannel {
  /**
   * Hands a connection over, with a text and with octets that were read of it; it is closed here.
   * False, and nothing has happened,
   * if that cannot be done at once.
   */
  give(connection: Connection, text: string, readAhead: Uint8Array): boolean
  /**
   * Gives the other process a connection to this one in place of a client's, for a client whose
   * octets are decrypted here: the near
   * end of it. Undefined if that cannot be done at once.
   */
  bridge(text: string, readAhead: Uint8Array): HalfClosable | undefined
}

/**
 * Program and arguments of a child, and its environment. Standard input and output are /dev/null,
 * standard error is inherited.
 */
export type ChannelProgram = {
  readonly file: string
  readonly args: readonly string[]
  readonly environment: Readonly<Record<string, string>>
}

/**
 * Implementation of connections. The other rooms use `Connection`, and this interface where
 * connections begin and end.
 */
export interface Engine {
  readonly name: EngineName
  /**
   * Accepts TCP connections from a listening socket, which is the acceptor's from now on, without
   * reading from them. Throws SystemCallError.
   */
  accept(listening: ListeningSocket, options: AcceptOptions, take: (socket: AcceptedSocket) => void): Acceptor
  /** Undefined: connections stay in the process that accepted them, and sessions are relayed. */
  readonly handover: Handover | undefined
  /** Starts a child and connects to it; the child calls `channelToParent`. */
  startChild(
    program: ChannelProgram,
    listener: ChannelListener,
  ): { readonly child: ChildProcess; readonly channel: SocketChannel }
  /** For a child that `startChild` of the same engine started. */
  channelToParent(listener: ChannelListener): SocketChannel
  /** Logs once, with the cause, if the kernel lacks something that only makes the engine slower. */
  logLimits(log: Log): void
}
