import { Epoll } from '../libc/epoll.ts'
import { watchReadable } from '../libc/native-function.ts'

/** Called with what a descriptor is ready for. */
export type Ready = (events: number) => void

const TAGS = 2 ** 32

/**
 * Waits for many sockets at once beside the runtime's own event loop, which sees one descriptor for all of them (epoll(7)). The runtime's own
 * sockets cost nearly twice the processor time for the dozen small reads and writes of a short POP3 session.
 */
export class SocketLoop {
  readonly #epoll = new Epoll()
  /** Each registration has a tag of its own: what is said of one that has ended reaches nobody, though its descriptor be used again. */
  readonly #registered = new Map<number, Ready>()
  readonly #watch = watchReadable(this.#epoll.descriptor, () => this.#epoll.poll(this.#visit))
  #lastTag = 0

  constructor() {
    this.#watch.unref()
  }

  /** Watches a descriptor for `events`, and always for errors. The process does not end by itself while there is one. */
  add(fd: number, events: number, ready: Ready): Registration {
    this.#lastTag = (this.#lastTag + 1) % TAGS
    const tag = this.#lastTag
    this.#epoll.add(fd, events, tag)
    this.#registered.set(tag, ready)
    if (this.#registered.size === 1) this.#watch.ref()
    return new Registration(this.#epoll, fd, events, tag, () => this.#forget(tag))
  }

  readonly #visit = (tag: number, events: number): void => this.#registered.get(tag)?.(events)

  #forget(tag: number): void {
    this.#registered.delete(tag)
    if (this.#registered.size === 0) this.#watch.unref()
  }
}

/** One descriptor that a loop watches. */
export class Registration {
  readonly #epoll: Epoll
  readonly #fd: number
  readonly #tag: number
  readonly #forget: () => void
  #events: number

  constructor(epoll: Epoll, fd: number, events: number, tag: number, forget: () => void) {
    this.#epoll = epoll
    this.#fd = fd
    this.#events = events
    this.#tag = tag
    this.#forget = forget
  }

  /** Watches for these events from now on. */
  change(events: number): void {
    if (events === this.#events) return
    this.#events = events
    this.#epoll.change(this.#fd, events, this.#tag)
  }

  /** The descriptor is about to be closed, and nobody else has it: the kernel forgets it by itself. */
  closing(): void {
    this.#forget()
  }

  /** Watches no more; the descriptor lives on. */
  remove(): void {
    this.#epoll.remove(this.#fd)
    this.#forget()
  }
}

let shared: SocketLoop | undefined

/** The loop of this process, made when it is first needed. */
export function socketLoop(): SocketLoop {
  shared ??= new SocketLoop()
  return shared
}
