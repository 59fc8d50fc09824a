import { closeSync, openSync } from 'node:fs'
import { constants } from 'node:os'
import { setBlocking } from '../libc/descriptors.ts'
import { READABLE } from '../libc/epoll.ts'
import { acceptFrom, inheritNoDelay, type SocketName, socketName } from '../libc/sockets.ts'
import { type IpAddress, readAddress } from '../wire/ip-address.ts'
import { type Registration, socketLoop } from './event-loop.ts'

/** Such as a BoundSocket. */
export type ListeningSocket = { readonly descriptor: number; release(): void }

/** The ends of a TCP connection. */
export type Ends = {
  readonly remoteIp: IpAddress
  readonly remotePort: number
  readonly localIp: IpAddress
  readonly localPort: number
}

/** Takes a connection over; its descriptor must be closed in the end. */
export type TakeClient = (fd: number, ends: Ends) => void

export type AcceptorOptions = {
  /** For a program that is started on the connection: it knows nothing of sockets that say EAGAIN. */
  readonly blocking: boolean
  /** What is written goes out at once (TCP_NODELAY, tcp(7)). */
  readonly noDelay: boolean
}

/** Connections accepted at a time, before whoever is connected gets his turn. */
const AT_A_TIME = 16
const { EMFILE, ENFILE } = constants.errno

/** Accepts TCP connections in the socket loop, without reading from them. */
export class ClientAcceptor {
  readonly #listening: ListeningSocket
  readonly #take: TakeClient
  readonly #options: AcceptorOptions
  readonly #registration: Registration
  /** Where clients are told the same about our end: what it is. */
  readonly #local: { readonly ip: IpAddress; readonly port: number } | undefined
  #isClosed = false
  /** Held so that with no descriptor left a client can still be taken, and turned away. */
  #reserve: number | undefined

  /** Throws SystemCallError. */
  constructor(listening: ListeningSocket, options: AcceptorOptions, take: TakeClient) {
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
    if (this.#reserve !== undefined) closeSync(this.#reserve)
  }

  readonly #accept = (): void => {
    for (let count = 0; count < AT_A_TIME && !this.#isClosed; count += 1) {
      const accepted = acceptFrom(this.#listening.descriptor, this.#options)
      if (typeof accepted === 'number') {
        if (accepted === -EMFILE || accepted === -ENFILE) this.#turnAway()
        return
      }
      const ends = this.#endsOf(accepted.fd, accepted.peer)
      if (ends === undefined) closeSync(accepted.fd)
      else this.#take(accepted.fd, ends)
    }
  }

  /** A client that nobody takes would be reported again and again. */
  #turnAway(): void {
    if (this.#reserve !== undefined) closeSync(this.#reserve)
    const accepted = acceptFrom(this.#listening.descriptor, this.#options)
    if (typeof accepted !== 'number') closeSync(accepted.fd)
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

function reserveDescriptor(): number | undefined {
  try {
    return openSync('/dev/null', 'r')
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
