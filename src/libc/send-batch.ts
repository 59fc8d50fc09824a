/**
 * Messages for many sockets in one system call (io_submit(2)): the kernel's queue, its limits, and
 * sending without it.
 */
import { constants } from 'node:os'
import { addressOf, lastErrno, nativeFunction, SystemCallError } from './native-function.ts'
import { sendFrom } from './sockets.ts'

/** The C library has no wrappers for these calls. */
const setup = nativeFunction('long syscall(long number, unsigned int most, void *context)')
const destroy = nativeFunction('long syscall(long number, long context)')
const submit = nativeFunction('long syscall(long number, long context, long count, const void *requests)')
const collect = nativeFunction(
  'long syscall(long number, long context, long least, long most, void *events, const void *limit)',
)

type Calls = { readonly setup: number; readonly destroy: number; readonly collect: number; readonly submit: number }

/** io_setup(2), io_destroy(2), io_getevents(2), io_submit(2). */
const CALLS: ReadonlyMap<string, Calls> = new Map([
  ['x64', { setup: 206, destroy: 207, collect: 208, submit: 209 }],
  ['arm64', { setup: 0, destroy: 1, collect: 4, submit: 2 }],
])

/**
 * struct iocb in words of 32 bits, and the places of the fields that are set. Both processors have
 * the low word first.
 */
const REQUEST = 16
const [NUMBER, FLAGS, OPERATION, DESCRIPTOR, ADDRESS, LENGTH] = [0, 3, 4, 5, 6, 8]
const PWRITE = 1
/**
 * EAGAIN instead of waiting, because another process that has the descriptor can make it blocking.
 */
const NOWAIT = 0x8
/**
 * struct io_event in words of 32 bits, and the place of the result. The number of the request comes
 * first.
 */
const EVENT = 8
const RESULT = 4
const WORD = 2 ** 32

/** Maximum messages and octets of a batch. */
const MOST = 64
const ROOM = 131_072
/**
 * Messages in one batch that open the kernel's queue. Each queue takes MOST of the host's
 * fs.aio-max-nr, which databases need too, so a process with few clients at a time opens no queue.
 */
const MANY = 8

const { EINVAL, EIO, ENOSYS, EOPNOTSUPP, EPERM } = constants.errno
/** Errors after which the kernel will refuse every later batch too. */
const NEVER: ReadonlySet<number> = new Set([EINVAL, ENOSYS, EOPNOTSUPP, EPERM])

/** Batches that are sent one by one before the next try to open a queue that the kernel refused. */
const BETWEEN_TRIES = 1_000

/** Why messages are sent one by one. */
export type BatchLack = SystemCallError | 'this processor is not known'

/**
 * Receives each message that was not sent whole, with the number of octets that the kernel accepted
 * or a negative errno. The message is valid during the call. Adding to the batch from inside
 * throws. `send` rethrows an error of this callback after all messages have been sent.
 */
export type Incomplete = (sent: number, message: Uint8Array) => void

type Message = { readonly fd: number; readonly begin: number; readonly end: number; readonly incomplete: Incomplete }

/**
 * Messages for many sockets that go out together, with two system calls (io_submit(2): for a socket
 * the work is done when the call returns).
 *
 * The batch saves system calls and wake-up ping-pong: the first recipient runs only after the whole
 * batch is queued. Messages go out one by one if the kernel does not have the calls, forbids them,
 * or has no NOWAIT for sockets (before 6.4). Never waits.
 */
export class SendBatch {
  readonly #octets = Buffer.allocUnsafeSlow(ROOM)
  readonly #messages: Message[] = []
  #used = 0
  #number = 0
  /** Undefined before the first use, and if the kernel has none. */
  #queue: KernelQueue | undefined
  /** Number of the first batch that may open the queue. */
  #nextTry = 0
  #lack: BatchLack | undefined
  #onLack: ((lack: BatchLack) => void) | undefined
  #isSending = false

  /** Maximum octets of one message. */
  static readonly MOST_OCTETS = ROOM

  /** Number of the batch that is being filled. */
  get number(): number {
    return this.#number
  }

  get isEmpty(): boolean {
    return this.#messages.length === 0
  }

  /**
   * Adds a text in Latin-1 with octets behind it. The descriptor must stay open until `send`, which
   * comes first if there is no more room.
   */
  add(fd: number, text: string, octets: Uint8Array | undefined, incomplete: Incomplete): void {
    // The octets of messages that are being sent would be overwritten.
    if (this.#isSending) throw new Error('a message was added while the batch is sent')
    const size = text.length + (octets?.length ?? 0)
    if (size > ROOM) throw new RangeError(`a message of ${size} octets: ${ROOM} at most`)
    if (this.#messages.length === MOST || this.#used + size > ROOM) this.send()
    const begin = this.#used
    const end = begin + size
    const head = begin + this.#octets.write(text, begin, 'latin1')
    if (octets !== undefined) this.#octets.set(octets, head)
    this.#messages.push({ fd, begin, end, incomplete })
    this.#used = end
  }

  /** Calls back when messages begin to go out one by one, at once if they do already. */
  onLack(callback: (lack: BatchLack) => void): void {
    this.#onLack = callback
    if (this.#lack !== undefined) callback(this.#lack)
  }

  /**
   * Sends everything, in the order in which it was added. Rethrows the error of a callback after
   * all callbacks were called.
   */
  send(): void {
    const messages = this.#messages.splice(0)
    this.#used = 0
    this.#number += 1
    const failures: unknown[] = []
    this.#isSending = true
    try {
      const queue = messages.length > 1 ? this.#queueFor(messages.length) : undefined
      const taken = queue === undefined ? 0 : this.#submit(queue, messages)
      for (const [index, { fd, begin, end, incomplete }] of messages.entries()) {
        const message = this.#octets.subarray(begin, end)
        const sent =
          queue !== undefined && index < taken ? queue.resultOf(index) : sendFrom(fd, message, message.length)
        if (sent >= message.length) continue
        try {
          incomplete(sent, message)
        } catch (error) {
          failures.push(error)
        }
      }
    } finally {
      this.#isSending = false
    }
    if (failures.length === 1) throw failures[0]
    if (failures.length > 1)
      throw new AggregateError(failures, `${failures.length} connections failed while a batch was sent`)
  }

  /** Returns the number of messages that the kernel accepted. */
  #submit(queue: KernelQueue, messages: readonly Message[]): number {
    for (const [index, { fd, begin, end }] of messages.entries()) queue.set(index, fd, begin, end - begin)
    const taken = queue.submit(messages.length)
    if (taken >= 0) return taken
    // After another error, such as that of a closed descriptor, the next batch can succeed.
    if (NEVER.has(-taken)) {
      queue.close()
      this.#queue = undefined
      this.#lacks(new SystemCallError('io_submit', -taken))
    }
    return 0
  }

  #queueFor(messages: number): KernelQueue | undefined {
    if (this.#queue !== undefined || messages < MANY || this.#number < this.#nextTry) return this.#queue
    const opened = KernelQueue.open(this.#octets)
    if (opened instanceof KernelQueue) this.#queue = opened
    else this.#lacks(opened)
    return this.#queue
  }

  /** Other processes can end and leave room in the kernel, so most errors are not for ever. */
  #lacks(lack: BatchLack): void {
    const isForEver = typeof lack === 'string' || NEVER.has(lack.errno)
    this.#nextTry = isForEver ? Number.POSITIVE_INFINITY : this.#number + BETWEEN_TRIES
    if (this.#lack !== undefined) return
    this.#lack = lack
    this.#onLack?.(lack)
  }
}

/** The requests of one batch as the kernel reads them, and their results. */
class KernelQueue {
  readonly #calls: Calls
  readonly #context: number
  /** The memory that the requests point to. This reference keeps it alive. */
  readonly #octets: Uint8Array
  readonly #address: number
  readonly #requests = new Uint32Array(REQUEST * MOST)
  readonly #pointers = new BigUint64Array(MOST)
  readonly #pointerOctets = new Uint8Array(this.#pointers.buffer)
  readonly #events = new Int32Array(EVENT * MOST)
  readonly #eventOctets = new Uint8Array(this.#events.buffer)
  readonly #results = new Int32Array(MOST)

  /** Opens a queue for messages within `octets`, or returns the reason why there is none. */
  static open(octets: Uint8Array): KernelQueue | BatchLack {
    const calls = CALLS.get(process.arch)
    if (calls === undefined) return 'this processor is not known'
    const context = new BigUint64Array(1)
    if (setup(calls.setup, MOST, new Uint8Array(context.buffer)) !== 0)
      return new SystemCallError('io_setup', lastErrno())
    return new KernelQueue(calls, Number(context[0] ?? 0n), octets)
  }

  private constructor(calls: Calls, context: number, octets: Uint8Array) {
    this.#calls = calls
    this.#context = context
    this.#octets = octets
    this.#address = addressOf(this.#octets)
    const requests = addressOf(new Uint8Array(this.#requests.buffer))
    for (let index = 0; index < MOST; index += 1) {
      const at = index * REQUEST
      this.#pointers[index] = BigInt(requests + at * Uint32Array.BYTES_PER_ELEMENT)
      this.#requests[at + NUMBER] = index
      this.#requests[at + FLAGS] = NOWAIT
      this.#requests[at + OPERATION] = PWRITE
    }
  }

  set(index: number, fd: number, begin: number, size: number): void {
    const at = index * REQUEST
    const address = this.#address + begin
    this.#requests[at + DESCRIPTOR] = fd
    this.#requests[at + ADDRESS] = address % WORD
    this.#requests[at + ADDRESS + 1] = Math.floor(address / WORD)
    this.#requests[at + LENGTH] = size
  }

  /**
   * Hands the first `count` requests to the kernel. Returns the number of requests that the kernel
   * accepted, in order, or a negative errno.
   */
  submit(count: number): number {
    const taken = submit(this.#calls.submit, this.#context, count, this.#pointerOctets)
    if (taken < 0) return -lastErrno()
    // A request without a result was sent to an unknown length, so its connection must be closed.
    this.#results.fill(-EIO, 0, taken)
    const { collect: number } = this.#calls
    const ended = taken === 0 ? 0 : collect(number, this.#context, taken, taken, this.#eventOctets, null)
    for (let at = 0; at < ended * EVENT; at += EVENT) {
      this.#results[this.#events[at] ?? 0] = this.#events[at + RESULT] ?? 0
    }
    return taken
  }

  /** Octets sent, or a negative errno. */
  resultOf(index: number): number {
    return this.#results[index] ?? 0
  }

  close(): void {
    destroy(this.#calls.destroy, this.#context)
  }
}
