/** The interface of an engine: accepting connections, and passing them to other processes. */
import type { ChildProcess } from 'node:child_process'
import type { Socket } from 'node:net'
import type { Log } from '../base/log.ts'
import type { IpAddress } from '../wire/ip-address.ts'
import type { Connection, HalfClosable } from './connection.ts'
import type { OpenSocket, OwnedDescriptor } from './owned-descriptor.ts'
import type { TwoWayListener, TwoWaySocket } from './two-way-socket.ts'

export const ENGINES = ['node', 'epoll'] as const
/** `node`: streams of the runtime. `epoll`: descriptors in an epoll instance (see README.md). */
export type EngineName = (typeof ENGINES)[number]

/** A listening socket whose owner can release it, such as a BoundSocket. */
export type ListeningSocket = { readonly descriptor: number; release(): void }

/** The ends of a TCP connection. */
export type Ends = {
  readonly remoteIp: IpAddress
  readonly remotePort: number
  readonly localIp: IpAddress
  readonly localPort: number
}

/**
 * An accepted connection from which nothing has been read. Its owner opens it, closes it, or runs a
 * child on it.
 */
export interface AcceptedSocket extends OpenSocket {
  readonly ends: Ends
  /**
   * Makes a connection, which owns the socket from now on. Throws if the engine cannot watch it;
   * the socket is then closed.
   */
  open(): Connection
  /** Returns the descriptor. The caller owns it from now on. Throws (EMFILE). */
  detach(): OwnedDescriptor
}

export type AcceptOptions = {
  /** For a program that runs on the connection and does not handle EAGAIN. */
  readonly blocking: boolean
  /** Sends small output without delay (TCP_NODELAY, tcp(7)). */
  readonly noDelay: boolean
}

export interface Acceptor {
  /** Stops accepting, and releases the listening socket. */
  close(): void
}

/** Callbacks of the owner of a channel. */
export type ChannelListener = {
  /**
   * Octets were read, in their order. `socket` came with some of these octets, and the listener
   * owns it. Null: a socket came, but this process had no descriptor left for it.
   */
  data(octets: Buffer, socket: OpenSocket | null | undefined): void
  /** The other end has ended its output. */
  end(): void
  /** `lend` can succeed again, after it returned false for lack of room. */
  room?(): void
  /** The channel is closed, by either side. No callback follows. */
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
   * Sends a socket, with a text and octets behind it. The socket stays open here. Returns false,
   * without an effect, if this is not possible at once.
   */
  lend(socket: OpenSocket, text: string, octets: Uint8Array): boolean
  /** Ends the output. An `epoll` channel continues to read; a `node` channel closes. */
  end(): void
  destroy(): void
}

/** Hands client connections over to a process that is not a child (SCM_RIGHTS, unix(7)). */
export interface Handover {
  /** Connects to the Unix socket at `path`. Throws SystemCallError. */
  connect(path: string, listener: ChannelListener): HandoverChannel
  /**
   * Makes a channel of a stream's connection, and destroys the stream. The stream must have no
   * unread octets of the other end.
   */
  from(stream: Socket, listener: ChannelListener): HandoverChannel
  /**
   * Makes a connection of a socket that another process sent. Returns the error if the engine
   * cannot watch the socket, and undefined if it is not a stream socket; the socket is then closed.
   */
  adopt(socket: OpenSocket): Connection | Error | undefined
}

export interface HandoverChannel extends SocketChannel {
  /**
   * Hands a connection over, with a text and with the octets that were read from it. The connection
   * is closed here. Returns false, without an effect, if this is not possible at once.
   */
  give(connection: Connection, text: string, readAhead: Uint8Array): boolean
  /**
   * Sends one end of a socket pair in place of a client's connection, for a client whose octets are
   * decrypted here. Returns the other end; undefined if this is not possible at once.
   */
  bridge(text: string, readAhead: Uint8Array): HalfClosable | undefined
}

/**
 * A program for a child. Its standard input and output are /dev/null, and it inherits standard
 * error.
 */
export type ChannelProgram = {
  readonly file: string
  readonly args: readonly string[]
  readonly environment: Readonly<Record<string, string>>
}

/** An implementation of connections. Other rooms use it only where connections begin and end. */
export interface Engine {
  readonly name: EngineName
  /**
   * Accepts TCP connections without reading from them. The acceptor owns the listening socket from
   * now on. Throws SystemCallError.
   */
  accept(listening: ListeningSocket, options: AcceptOptions, take: (socket: AcceptedSocket) => void): Acceptor
  /**
   * Makes a socket whose two directions end separately, which owns the descriptor from now on.
   * Throws SystemCallError; the caller then still owns the descriptor.
   */
  twoWay(descriptor: OwnedDescriptor, listener: TwoWayListener): TwoWaySocket
  /** Number of descriptors of each socket of `twoWay`. */
  readonly twoWayDescriptors: number
  /** Undefined if the engine cannot hand connections over. Sessions are then relayed. */
  readonly handover: Handover | undefined
  /** Starts a child with a channel to it. The child calls `channelToParent`. */
  startChild(
    program: ChannelProgram,
    listener: ChannelListener,
  ): { readonly child: ChildProcess; readonly channel: SocketChannel }
  /** Opens the channel in a child that `startChild` of the same engine started. */
  channelToParent(listener: ChannelListener): SocketChannel
  /** Logs once if the kernel lacks a function without which the engine is slower. */
  logLimits(log: Log): void
}
