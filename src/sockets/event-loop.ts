/** The event loop of the engine `epoll`. README.md of this room describes a turn. */
import { Epoll } from '../libc/epoll.ts'
import { watchReadable } from '../libc/native-function.ts'
import { type BatchLack, type Incomplete, SendBatch } from '../libc/send-batch.ts'

/** Called with the epoll(7) events of a descriptor. */
export type Ready = (events: number) => void

/**
 * Waits for many sockets at once (epoll(7)). The runtime's own event loop watches one descriptor
 * for all of them. For the dozen small reads and writes of a short POP3 session, the runtime's own
 * sockets take nearly twice the processor time.
 */
export class EventLoop {
  readonly #epoll = new Epoll()
  /**
   * The registrations by tag. A descriptor number is soon used again, a tag only after 2^32 others:
   * an event of an ended registration is dropped.
   */
  readonly #registered = new Map<number, Ready>()
  readonly #watch = watchReadable(this.#epoll.descriptor, () => this.#turn())
  #lastTag = 0
  readonly #tags: number
  readonly #batch = new SendBatch()
  #inTurn = false
  /** Tags of registrations that ended in this turn. Their events may still follow in the turn. */
  readonly #ended = new Set<number>()
  #onStrayEvent: ((tag: number) => void) | undefined

  /** `tags`: number of different tags; tests need few. */
  constructor(tags = 2 ** 32) {
    this.#tags = tags
    this.#watch.unref()
  }

  /**
   * Watches a descriptor for `events`, and always for errors and hang-ups. A registration keeps the
   * process running. Throws SystemCallError.
   */
  add(fd: number, events: number, ready: Ready): Registration {
    const tag = this.#freeTag()
    this.#epoll.add(fd, events, tag)
    this.#registered.set(tag, ready)
    if (this.#registered.size === 1) this.#watch.ref()
    return new Registration(this.#epoll, fd, events, tag, () => this.#forget(tag))
  }

  /** A listening socket may keep its tag while all other tags are used once. */
  #freeTag(): number {
    do this.#lastTag = (this.#lastTag + 1) % this.#tags
    while (this.#registered.has(this.#lastTag))
    return this.#lastTag
  }

  /**
   * Adds a message of at most SendBatch.MOST_OCTETS to the batch, which is sent at the end of this
   * turn; outside a turn in a microtask. Returns the number of the batch. The descriptor must stay
   * open until `batch` is another number.
   */
  send(fd: number, text: string, octets: Uint8Array | undefined, incomplete: Incomplete): number {
    if (!this.#inTurn && this.#batch.isEmpty) queueMicrotask(() => this.#batch.send())
    this.#batch.add(fd, text, octets, incomplete)
    return this.#batch.number
  }

  /** Number of the batch that messages are added to. */
  get batch(): number {
    return this.#batch.number
  }

  /**
   * Calls back at the first batch that the kernel refuses, at once if it already has refused one.
   */
  onBatchLack(callback: (lack: BatchLack) => void): void {
    this.#batch.onLack(callback)
  }

  /**
   * Calls back once, with the tag, if the kernel reports an event without a registration. This is a
   * fault of this room: the descriptor was closed before its registration ended, while another
   * process has the open file. The kernel then reports the event at every turn.
   */
  onStrayEvent(callback: (tag: number) => void): void {
    this.#onStrayEvent = callback
  }

  /** Sends the batch now. */
  sendBatch(): void {
    this.#batch.send()
  }

  #turn(): void {
    this.#inTurn = true
    this.#ended.clear()
    try {
      this.#epoll.poll(this.#visit)
    } finally {
      this.#inTurn = false
      this.#batch.send()
    }
  }

  readonly #visit = (tag: number, events: number): void => {
    const ready = this.#registered.get(tag)
    if (ready !== undefined) ready(events)
    else if (!this.#ended.has(tag)) {
      this.#onStrayEvent?.(tag)
      this.#onStrayEvent = undefined
    }
  }

  #forget(tag: number): void {
    this.#registered.delete(tag)
    if (this.#inTurn) this.#ended.add(tag)
    if (this.#registered.size === 0) this.#watch.unref()
  }
}

/** A descriptor that the loop watches. */
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

  /** Replaces the events that the loop waits for. */
  change(events: number): void {
    if (events === this.#events) return
    this.#events = events
    this.#epoll.change(this.#fd, events, this.#tag)
  }

  /**
   * Ends the registration. Call it before the descriptor is closed: the kernel watches the open
   * file, and continues to report it if another process has it too.
   */
  remove(): void {
    this.#epoll.remove(this.#fd)
    this.#forget()
  }
}

let shared: EventLoop | undefined

/** The event loop of this process. The first call makes it. */
export function socketLoop(): EventLoop {
  shared ??= new EventLoop()
  return shared
}
