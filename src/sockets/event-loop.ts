import { Epoll } from '../libc/epoll.ts'
import { watchReadable } from '../libc/native-function.ts'
import { type BatchEnd, type Incomplete, SendBatch } from '../libc/send-batch.ts'

/** Called with the events for which a descriptor is ready. */
export type Ready = (events: number) => void

const TAGS = 2 ** 32

/**
 * Waits for many sockets at once beside the runtime's own event loop, which sees one descriptor for
 * all of them (epoll(7)). The runtime's own sockets cost nearly twice the processor time for the
 * dozen small reads and writes of a short POP3 session.
 */
export class EventLoop {
  readonly #epoll = new Epoll()
  /**
   * Each registration has a separate tag: an event of an ended registration is dropped, even if the
   * descriptor number is used again.
   */
  readonly #registered = new Map<number, Ready>()
  readonly #watch = watchReadable(this.#epoll.descriptor, () => this.#turn())
  #lastTag = 0
  readonly #batch = new SendBatch()
  #inTurn = false
  /** Tags of registrations that ended in this turn: the kernel may have reported them before. */
  readonly #ended = new Set<number>()
  #onStrayEvent: ((tag: number) => void) | undefined

  constructor() {
    this.#watch.unref()
  }

  /**
   * Watches a descriptor for `events`, and always for errors. A registration keeps the process
   * running.
   */
  add(fd: number, events: number, ready: Ready): Registration {
    this.#lastTag = (this.#lastTag + 1) % TAGS
    const tag = this.#lastTag
    this.#epoll.add(fd, events, tag)
    this.#registered.set(tag, ready)
    if (this.#registered.size === 1) this.#watch.ref()
    return new Registration(this.#epoll, fd, events, tag, () => this.#forget(tag))
  }

  /**
   * Sends together with the other messages of this turn, or of this microtask; at most
   * SendBatch.MOST_OCTETS. Returns the number of the batch: the message is sent when `batch` has
   * another number. Until then the descriptor must stay open.
   */
  send(fd: number, text: string, octets: Uint8Array | undefined, incomplete: Incomplete): number {
    if (!this.#inTurn && this.#batch.isEmpty) queueMicrotask(() => this.#batch.send())
    this.#batch.add(fd, text, octets, incomplete)
    return this.#batch.number
  }

  /** The batch that is being filled. */
  get batch(): number {
    return this.#batch.number
  }

  /**
   * Calls back when the kernel no longer accepts the messages of a turn together, at once if this
   * is already so.
   */
  onBatchEnd(callback: (end: BatchEnd) => void): void {
    this.#batch.onEnd(callback)
  }

  /**
   * Calls back once, with its tag, if the kernel reports a descriptor without a registration. This
   * is a fault of this room: the descriptor was closed before its registration ended, while another
   * process has the open file. The kernel then reports it at every turn.
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

  /**
   * Ends the registration. Call it before the descriptor is closed. The kernel watches the open
   * file. If another process also has the file, the kernel would report a descriptor that has no
   * name here any more.
   */
  remove(): void {
    this.#epoll.remove(this.#fd)
    this.#forget()
  }
}

let shared: EventLoop | undefined

/** The loop of this process, made when it is first needed. */
export function socketLoop(): EventLoop {
  shared ??= new EventLoop()
  return shared
}
