/** The engine `epoll`: sockets as descriptors in an epoll instance. */

import { type StdioOptions, spawn } from 'node:child_process'
import { openSync } from 'node:fs'
import { constants } from 'node:os'
import { setBlocking } from '../libc/descriptors.ts'
import { READABLE } from '../libc/epoll.ts'
import { SystemCallError } from '../libc/native-function.ts'
import { acceptFrom, inheritNoDelay, isStreamSocket, type SocketName, socketName } from '../libc/sockets.ts'
import { type IpAddress, readAddress } from '../wire/ip-address.ts'
import type { Connection } from './connection.ts'
import { DescriptorChannel } from './descriptor-channel.ts'
import type { AcceptedSocket, AcceptOptions, Acceptor, Ends, Engine, ListeningSocket } from './engine.ts'
import { EpollConnection } from './epoll-connection.ts'
import { EpollTwoWaySocket } from './epoll-two-way-socket.ts'
import { type Registration, socketLoop } from './event-loop.ts'
import { OwnedDescriptor } from './owned-descriptor.ts'

/** Maximum accepts per wake-up, so that new connections cannot starve existing ones. */
const AT_A_TIME = 16
const { EMFILE, ENFILE } = constants.errno

/** Accepts TCP connections in the socket loop, without reading from them. */
export class ClientAcceptor implements Acceptor {
  readonly #listening: ListeningSocket
  readonly #take: (socket: AcceptedSocket) => void
  readonly #options: AcceptOptions
  readonly #registration: Registration
  /** Local address, if the listening socket is bound to a specific one. */
  readonly #local: { readonly ip: IpAddress; readonly port: number } | undefined
  #isClosed = false
  /**
   * A spare descriptor. When no other one is left, it is closed, so that the acceptor can accept a
   * client and refuse it.
   */
  #reserve: OwnedDescriptor | undefined

  /** Throws SystemCallError. */
  constructor(listening: ListeningSocket, options: AcceptOptions, take: (socket: AcceptedSocket) => void) {
    this.#listening = listening
    this.#options = options
    this.#take = take
    const { descriptor } = listening
    setBlocking(descriptor, false)
    if (options.noDelay) inheritNoDelay(descriptor)
    this.#local = localEnd(descriptor)
    this.#reserve = reserveDescriptor()
    this.#registration = socketLoop().add(descriptor, READABLE, this.#accept)
  }

  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#registration.remove()
    this.#listening.release()
    this.#reserve?.close()
  }

  readonly #accept = (): void => {
    for (let count = 0; count < AT_A_TIME && !this.#isClosed; count += 1) {
      const accepted = acceptFrom(this.#listening.descriptor, this.#options)
      if (typeof accepted === 'number') {
        if (accepted === -EMFILE || accepted === -ENFILE) this.#turnAway()
        return
      }
      const descriptor = new OwnedDescriptor(accepted.fd)
      const ends = this.#endsOf(accepted.fd, accepted.peer)
      if (ends === undefined) descriptor.close()
      else this.#take(new AcceptedDescriptor(descriptor, ends))
    }
  }

  /**
   * Accepts a client and closes it at once, because no descriptor is left. If it were not accepted,
   * epoll would report it at every turn.
   */
  #turnAway(): void {
    this.#reserve?.close()
    const accepted = acceptFrom(this.#listening.descriptor, this.#options)
    if (typeof accepted !== 'number') new OwnedDescriptor(accepted.fd).close()
    this.#reserve = reserveDescriptor()
  }

  #endsOf(fd: number, peer: SocketName | undefined): Ends | undefined {
    if (peer?.family !== 'internet') return undefined
    const remoteIp = readAddress(peer.octets)
    const local = this.#local ?? localEnd(fd)
    return local === undefined
      ? undefined
      : { remoteIp, remotePort: peer.port, localIp: local.ip, localPort: local.port }
  }
}

/** An accepted connection as a descriptor, which is not watched yet. */
class AcceptedDescriptor implements AcceptedSocket {
  readonly #owned: OwnedDescriptor
  readonly ends: Ends

  constructor(owned: OwnedDescriptor, ends: Ends) {
    this.#owned = owned
    this.ends = ends
  }

  get descriptor(): number {
    return this.#owned.descriptor
  }

  open(): Connection {
    return new EpollConnection(this.#owned)
  }

  detach(): OwnedDescriptor {
    return new OwnedDescriptor(this.#owned.release())
  }

  close(): void {
    this.#owned.close()
  }
}

function reserveDescriptor(): OwnedDescriptor | undefined {
  try {
    return new OwnedDescriptor(openSync('/dev/null', 'r'))
  } catch {
    return undefined // No descriptor is left. Clients wait in the queue of the listening socket.
  }
}

/** The local address and port of a socket; undefined if it is bound to all addresses. */
function localEnd(fd: number): { readonly ip: IpAddress; readonly port: number } | undefined {
  const name = socketName(fd)
  if (name?.family !== 'internet' || name.octets.every(octet => octet === 0)) return undefined
  return { ip: readAddress(name.octets), port: name.port }
}

/** The descriptor at which a child finds its end of the channel. */
const CHANNEL_DESCRIPTOR = 3

export const epollEngine: Engine = {
  name: 'epoll',

  accept: (listening, options, take) => new ClientAcceptor(listening, options, take),

  twoWay: (descriptor, listener) => new EpollTwoWaySocket(descriptor, listener),
  twoWayDescriptors: 1,

  handover: {
    connect: DescriptorChannel.connect,
    from: DescriptorChannel.from,
    adopt(socket) {
      // Only stream sockets, because io_submit would also write to a file.
      if (!(socket instanceof OwnedDescriptor) || !isStreamSocket(socket.descriptor)) {
        socket.close()
        return undefined
      }
      try {
        return new EpollConnection(socket)
      } catch (error) {
        if (error instanceof SystemCallError) return error
        throw error
      }
    },
  },

  startChild({ file, args, environment }, listener) {
    const { channel, other } = DescriptorChannel.pair(listener)
    try {
      const stdio: StdioOptions = ['ignore', 'ignore', 'inherit', other.descriptor]
      return { child: spawn(file, [...args], { stdio, env: { ...environment } }), channel }
    } finally {
      other.close()
    }
  },

  channelToParent: listener => new DescriptorChannel(new OwnedDescriptor(CHANNEL_DESCRIPTOR), listener),

  logLimits(log) {
    socketLoop().onBatchLack(reason => log.info('batch_unavailable', { reason }))
    socketLoop().onStrayEvent(registration =>
      log.error('event_unmatched', { registration, reason: 'no registration has this tag' }),
    )
  },
}
