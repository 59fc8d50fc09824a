import { openSync } from 'node:fs'
import { constants } from 'node:os'
import { setBlocking } from '../libc/descriptors.ts'
import { READABLE } from '../libc/epoll.ts'
import { acceptFrom, inheritNoDelay, type SocketName, socketName } from '../libc/sockets.ts'
import { type IpAddress, readAddress } from '../wire/ip-address.ts'
import type { Connection } from './connection.ts'
import type { AcceptedSocket, AcceptOptions, Acceptor, Ends, ListeningSocket } from './engine.ts'
import { EpollConnection } from './epoll-connection.ts'
import { type Registration, socketLoop } from './event-loop.ts'
import { OwnedDescriptor } from './owned-descriptor.ts'

/** Connections accepted at a time, before whoever is connected gets his turn. */
const AT_A_TIME = 16
const { EMFILE, ENFILE } = constants.errno

/** Accepts TCP connections in the socket loop, without reading from them. */
export class ClientAcceptor implements Acceptor {
  readonly #listening: ListeningSocket
  readonly #take: (socket: AcceptedSocket) => void
  readonly #options: AcceptOptions
  readonly #registration: Registration
  /** Where clients are told the same about our end: what it is. */
  readonly #local: { readonly ip: IpAddress; readonly port: number } | undefined
  #isClosed = false
  /** Held so that with no descriptor left a client can still be taken, and turned away. */
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

  /** Accepts no more, and releases the listening socket. */
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

  /** A client that nobody takes would be reported again and again. */
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

/** A descriptor that the acceptor got, not yet watched. */
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

  detach(): number {
    return this.#owned.release()
  }

  close(): void {
    this.#owned.close()
  }
}

function reserveDescriptor(): OwnedDescriptor | undefined {
  try {
    return new OwnedDescriptor(openSync('/dev/null', 'r'))
  } catch {
    return undefined // none to be had: clients are kept waiting then
  }
}

/** Undefined also for a socket that is bound to every address. */
function localEnd(fd: number): { readonly ip: IpAddress; readonly port: number } | undefined {
  const name = socketName(fd)
  if (name?.family !== 'internet' || name.octets.every(octet => octet === 0)) return undefined
  return { ip: readAddress(name.octets), port: name.port }
}
