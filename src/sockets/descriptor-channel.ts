import { closeSync } from 'node:fs'
import type { Socket } from 'node:net'
import { descriptorOf } from '../base/node-internals.ts'
import { receiveDescriptor, sendDescriptor } from '../libc/descriptor-passing.ts'
import { duplicateDescriptor } from '../libc/descriptors.ts'
import { BROKEN, HUNG_UP, READABLE, WRITABLE } from '../libc/epoll.ts'
import { connectUnix, endOutput, isLater, openSocketPair, sendFrom, unixSocket } from '../libc/sockets.ts'
import { EpollConnection } from './epoll-connection.ts'
import { type Registration, socketLoop } from './event-loop.ts'

/** What the owner of a DescriptorChannel hears. */
export type DescriptorChannelListener = {
  /** In order. `descriptor` came with some of the octets and is the listener's; null: this process had no room for it. */
  data(octets: Buffer, descriptor: number | null | undefined): void
  /** The other end sends nothing more. */
  end(): void
  /** There is room again, after `lend` or `give` had none. */
  room?(): void
  /** Closed, here or there; the last word. */
  closed(): void
}

/** Messages taken at a time, before somebody else has his turn. */
const AT_A_TIME = 16
/** Octets that the other end has not taken, above which it is given up. */
const MAX_UNSENT = 1_048_576
const NOTHING: Buffer = Buffer.alloc(0)

/** One end of a Unix stream socket in the socket loop, through which clients' sockets travel beside octets (SCM_RIGHTS, unix(7)). */
export class DescriptorChannel {
  readonly #fd: number
  readonly #listener: DescriptorChannelListener
  readonly #registration: Registration
  #unsent: Buffer = NOTHING
  #inputEnded = false
  #isEnding = false
  #isDestroyed = false
  #wantsRoom = false

  /** Takes the descriptor over; what is read of it from now on the listener hears. */
  constructor(fd: number, listener: DescriptorChannelListener) {
    this.#fd = fd
    this.#listener = listener
    this.#registration = socketLoop().add(fd, READABLE, this.#ready)
  }

  /** Connects to whoever listens at `path`. Throws SystemCallError. */
  static connect(path: string, listener: DescriptorChannelListener): DescriptorChannel {
    const fd = unixSocket({ blocking: false })
    try {
      connectUnix(fd, path)
    } catch (error) {
      closeSync(fd)
      throw error
    }
    return new DescriptorChannel(fd, listener)
  }

  /** One end of a new pair; the other is a descriptor, which the caller gives to a child and closes. Throws SystemCallError. */
  static pair(listener: DescriptorChannelListener): { readonly socket: DescriptorChannel; readonly other: number } {
    const [own, other] = openSocketPair()
    return { socket: new DescriptorChannel(own, listener), other }
  }

  /** The connection of a stream, which is destroyed. The other end must have sent nothing that the stream has not given out. */
  static from(stream: Socket, listener: DescriptorChannelListener): DescriptorChannel {
    const fd = duplicateDescriptor(descriptorOf(stream))
    stream.destroy()
    return new DescriptorChannel(fd, listener)
  }

  get isDestroyed(): boolean {
    return this.#isDestroyed
  }

  /** Sends a text, one octet per character. */
  write(text: string): void {
    if (this.#isDestroyed || this.#isEnding) return
    const octets = Buffer.from(text, 'latin1')
    const sent = this.#unsent.length > 0 ? 0 : this.#result(sendFrom(this.#fd, octets, octets.length))
    if (sent !== undefined) this.#keep(octets.subarray(sent))
  }

  /**
   * Gives a client's socket to the other end, with a text and what this process has read of the client; it is closed here. False, and nothing has
   * happened, if that cannot be done at once.
   */
  give(client: EpollConnection, text: string, readAhead: Uint8Array): boolean {
    return client.giveAway(fd => this.lend(fd, text, readAhead))
  }

  /**
   * Gives the other end a connection to this process in place of a client's: the near end of it; undefined if that cannot be done
   * at once.
   */
  bridge(text: string, readAhead: Uint8Array): EpollConnection | undefined {
    const [near, far] = openPair() ?? []
    if (near === undefined || far === undefined) return undefined
    const isLent = this.lend(far, text, readAhead)
    closeSync(far)
    if (!isLent) {
      closeSync(near)
      return undefined
    }
    const connection = EpollConnection.adopt(near)
    return connection instanceof EpollConnection ? connection : undefined
  }

  /** As `give`, of a descriptor that stays open here. */
  lend(descriptor: number, text: string, octets: Uint8Array): boolean {
    if (this.#isDestroyed || this.#isEnding) return false
    const sent = this.#unsent.length > 0 ? 0 : this.#result(sendDescriptor(this.#fd, descriptor, text, octets))
    if (sent === undefined) return false
    if (sent === 0) {
      this.#wantsRoom = this.#listener.room !== undefined
      this.#watch()
      return false
    }
    if (sent < text.length + octets.length)
      this.#keep(Buffer.concat([Buffer.from(text, 'latin1'), octets]).subarray(sent))
    return true
  }

  /** Sends nothing more, and goes on listening. */
  end(): void {
    if (this.#isDestroyed || this.#isEnding) return
    this.#isEnding = true
    if (this.#unsent.length === 0) endOutput(this.#fd)
  }

  destroy(): void {
    if (this.#isDestroyed) return
    this.#isDestroyed = true
    this.#registration.remove()
    closeSync(this.#fd)
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
      this.#listener.data(received.octets, received.descriptor)
    }
  }

  #flush(): void {
    const sent = this.#unsent.length === 0 ? 0 : this.#result(sendFrom(this.#fd, this.#unsent, this.#unsent.length))
    if (sent === undefined) return
    this.#unsent = this.#unsent.subarray(sent)
    if (this.#isEnding && this.#unsent.length === 0) endOutput(this.#fd)
    const hasRoom = this.#wantsRoom && this.#unsent.length === 0
    if (hasRoom) this.#wantsRoom = false
    this.#watch()
    if (hasRoom) this.#listener.room?.()
  }

  #keep(octets: Uint8Array): void {
    if (octets.length === 0) return
    this.#unsent = Buffer.concat([this.#unsent, octets])
    if (this.#unsent.length > MAX_UNSENT) this.#giveUp()
    else this.#watch()
  }

  #watch(): void {
    this.#registration.change(
      (this.#inputEnded ? 0 : READABLE) | (this.#unsent.length > 0 || this.#wantsRoom ? WRITABLE : 0),
    )
  }

  /** How many octets the kernel took; undefined if the connection is broken. */
  #result(sent: number): number | undefined {
    if (sent >= 0) return sent
    if (isLater(sent)) return 0
    this.#giveUp()
    return undefined
  }

  /** The owner, who is just saying something, is told in a moment. */
  #giveUp(): void {
    queueMicrotask(() => this.destroy())
  }
}

/** Undefined if this process, or the host, has no room for more open files. */
function openPair(): readonly [number, number] | undefined {
  try {
    return openSocketPair()
  } catch {
    return undefined
  }
}
