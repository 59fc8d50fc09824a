/** The descriptor channel of the engine `epoll`, with the bounds of its input and its output. */

import type { Socket } from 'node:net'
import { descriptorOf } from '../base/node-internals.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/descriptor-passing.ts'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import { BROKEN, HUNG_UP, READABLE, WRITABLE } from '../libc/epoll.ts'
import { connectUnix, endOutput, isLater, sendFrom, unixSocket } from '../libc/sockets.ts'
import type { Connection, HalfClosable } from './connection.ts'
import type { ChannelListener, HandoverChannel } from './engine.ts'
import { EpollConnection } from './epoll-connection.ts'
import { type Registration, socketLoop } from './event-loop.ts'
import { type OpenSocket, OwnedDescriptor } from './owned-descriptor.ts'

/** Maximum messages per wake-up, so that one channel cannot starve other sockets. */
const AT_A_TIME = 16
/** Maximum unsent octets; above this the connection is closed. */
const MAX_UNSENT_OCTETS = 1_048_576
const NOTHING: Buffer = Buffer.alloc(0)

/**
 * One end of a Unix stream socket in the socket loop, which carries clients' sockets and octets
 * (SCM_RIGHTS, unix(7)).
 */
export class DescriptorChannel implements HandoverChannel {
  readonly #descriptor: OwnedDescriptor
  readonly #listener: ChannelListener
  readonly #registration: Registration
  #unsent: Buffer = NOTHING
  #inputEnded = false
  #isEnding = false
  #isDestroyed = false
  #needsRoom = false

  /** Takes the descriptor over. Throws SystemCallError; the descriptor is then closed. */
  constructor(descriptor: OwnedDescriptor, listener: ChannelListener) {
    this.#descriptor = descriptor
    this.#listener = listener
    try {
      this.#registration = socketLoop().add(descriptor.descriptor, READABLE, this.#ready)
    } catch (error) {
      descriptor.close()
      throw error
    }
  }

  /** Throws after the channel is destroyed. */
  get #fd(): number {
    return this.#descriptor.descriptor
  }

  /** Connects to the process that listens at `path`. Throws SystemCallError. */
  static connect(path: string, listener: ChannelListener): DescriptorChannel {
    const descriptor = new OwnedDescriptor(unixSocket({ blocking: false }))
    try {
      connectUnix(descriptor.descriptor, path)
    } catch (error) {
      descriptor.close()
      throw error
    }
    return new DescriptorChannel(descriptor, listener)
  }

  /**
   * Makes a pair. `other` is the second end, which the caller gives to a child and closes. Throws
   * SystemCallError.
   */
  static pair(listener: ChannelListener): { readonly channel: DescriptorChannel; readonly other: OwnedDescriptor } {
    const [own, other] = OwnedDescriptor.pair()
    try {
      return { channel: new DescriptorChannel(own, listener), other }
    } catch (error) {
      other.close()
      throw error
    }
  }

  /** See Handover.from. */
  static from(stream: Socket, listener: ChannelListener): DescriptorChannel {
    const descriptor = new OwnedDescriptor(duplicateDescriptor(descriptorOf(stream)))
    stream.destroy()
    return new DescriptorChannel(descriptor, listener)
  }

  get isDestroyed(): boolean {
    return this.#isDestroyed
  }

  write(text: string): void {
    if (this.#isDestroyed || this.#isEnding) return
    const octets = Buffer.from(text, 'latin1')
    const sent = this.#unsent.length > 0 ? 0 : this.#result(sendFrom(this.#fd, octets, octets.length))
    if (sent !== undefined) this.#keep(octets.subarray(sent))
  }

  give(connection: Connection, text: string, readAhead: Uint8Array): boolean {
    return connection.handOver(descriptor => this.#lend(descriptor, text, readAhead))
  }

  bridge(text: string, readAhead: Uint8Array): HalfClosable | undefined {
    const [near, far] = openPair() ?? []
    if (near === undefined || far === undefined) return undefined
    const isLent = this.lend(far, text, readAhead)
    far.close()
    if (!isLent) {
      near.close()
      return undefined
    }
    try {
      return new EpollConnection(near)
    } catch {
      return undefined // The kernel has no room for another watch. The worker reads an end.
    }
  }

  lend(socket: OpenSocket, text: string, octets: Uint8Array): boolean {
    return this.#lend(socket.descriptor, text, octets)
  }

  #lend(descriptor: number, text: string, octets: Uint8Array): boolean {
    if (this.#isDestroyed || this.#isEnding) return false
    const sent = this.#unsent.length > 0 ? 0 : this.#result(sendDescriptor(this.#fd, descriptor, text, octets))
    if (sent === undefined) return false
    if (sent === 0) {
      this.#needsRoom = this.#listener.room !== undefined
      this.#watch()
      return false
    }
    if (sent < text.length + octets.length)
      this.#keep(Buffer.concat([Buffer.from(text, 'latin1'), octets]).subarray(sent))
    return true
  }

  end(): void {
    if (this.#isDestroyed || this.#isEnding) return
    this.#isEnding = true
    if (this.#unsent.length === 0) endOutput(this.#fd)
  }

  destroy(): void {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    this.#registration.remove()
    this.#descriptor.close()
    this.#listener.closed()
  }

  readonly #ready = (events: number): void => {
    if ((events & WRITABLE) !== 0) this.#flush()
    if (this.#isDestroyed) return
    if (this.#inputEnded) {
      if ((events & (BROKEN | HUNG_UP)) !== 0) this.destroy()
    } else if ((events & ~WRITABLE) !== 0) this.#read()
  }

  #read(): void {
    for (let count = 0; count < AT_A_TIME && !this.#isDestroyed; count += 1) {
      const received = receiveDescriptor(this.#fd)
      if (typeof received === 'number') {
        if (!isLater(received)) this.destroy()
        return
      }
      if (received.octets.length === 0) {
        this.#inputEnded = true
        this.#watch()
        this.#listener.end()
        return
      }
      const { octets, descriptor } = received
      this.#listener.data(octets, typeof descriptor === 'number' ? new OwnedDescriptor(descriptor) : descriptor)
    }
  }

  #flush(): void {
    const sent = this.#unsent.length === 0 ? 0 : this.#result(sendFrom(this.#fd, this.#unsent, this.#unsent.length))
    if (sent === undefined) return
    this.#unsent = this.#unsent.subarray(sent)
    if (this.#isEnding && this.#unsent.length === 0) endOutput(this.#fd)
    const hasRoom = this.#needsRoom && this.#unsent.length === 0
    if (hasRoom) this.#needsRoom = false
    this.#watch()
    if (hasRoom) this.#listener.room?.()
  }

  #keep(octets: Uint8Array): void {
    if (octets.length === 0) return
    this.#unsent = Buffer.concat([this.#unsent, octets])
    if (this.#unsent.length > MAX_UNSENT_OCTETS) this.#destroyLater()
    else this.#watch()
  }

  #watch(): void {
    this.#registration.change(
      (this.#inputEnded ? 0 : READABLE) | (this.#unsent.length > 0 || this.#needsRoom ? WRITABLE : 0),
    )
  }

  /** Octets that the kernel accepted; undefined if the connection failed. */
  #result(sent: number): number | undefined {
    if (sent >= 0) return sent
    if (isLater(sent)) return 0
    this.#destroyLater()
    return undefined
  }

  /** Destroys in a microtask, so that `closed` is never called from inside the owner's `write`. */
  #destroyLater(): void {
    queueMicrotask(() => this.destroy())
  }
}

/** Undefined if the limit of open files of this process or of the host is reached. */
function openPair(): readonly OwnedDescriptor[] | undefined {
  try {
    return OwnedDescriptor.pair()
  } catch {
    return undefined
  }
}
