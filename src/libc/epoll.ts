/** The kernel's epoll(7) interface, with the layout of its events. */

import { checked, nativeFunction } from './native-function.ts'

const create = nativeFunction('int epoll_create1(int flags)')
const control = nativeFunction('int epoll_ctl(int epfd, int operation, int fd, void *event)')
const wait = nativeFunction('int epoll_wait(int epfd, void *events, int most, int timeout)')

const EPOLL_CLOEXEC = 0o2000000
const [ADD, REMOVE, CHANGE] = [1, 2, 3]

/** Events of a descriptor (epoll_ctl(2)); the last two are always reported. */
export const [READABLE, WRITABLE, BROKEN, HUNG_UP] = [0x1, 0x4, 0x8, 0x10]

/**
 * struct epoll_event in words of 32 bits: the events, then the tag. It is packed on x86-64 alone.
 */
const WORDS = process.arch === 'x64' ? 3 : 4
const TAG = WORDS - 2
/** Maximum events of one poll. */
const MOST = 64

/**
 * One epoll(7) instance, level-triggered. Every call throws SystemCallError if the kernel refuses
 * it.
 */
export class Epoll {
  readonly descriptor = checked('epoll_create1', create(EPOLL_CLOEXEC))
  readonly #ready = new Uint32Array(WORDS * MOST)
  readonly #readyOctets = new Uint8Array(this.#ready.buffer)
  readonly #change = new Uint32Array(WORDS)
  readonly #changeOctets = new Uint8Array(this.#change.buffer)

  /** `tag`: 32 bits, which `poll` reports with each event of the descriptor. */
  add(fd: number, events: number, tag: number): void {
    this.#control(ADD, fd, events, tag)
  }

  change(fd: number, events: number, tag: number): void {
    this.#control(CHANGE, fd, events, tag)
  }

  /**
   * Call it before the descriptor is closed, because the kernel watches the open file, which
   * another process may have too.
   */
  remove(fd: number): void {
    this.#control(REMOVE, fd, 0, 0)
  }

  /** Reports descriptors that are ready now, at most 64. Never waits. */
  poll(visit: (tag: number, events: number) => void): void {
    const count = wait(this.descriptor, this.#readyOctets, MOST, 0)
    // -1: a signal interrupted the call; the next call reports the ready descriptors.
    for (let at = 0; at < count * WORDS; at += WORDS) visit(this.#ready[at + TAG] ?? 0, this.#ready[at] ?? 0)
  }

  #control(operation: number, fd: number, events: number, tag: number): void {
    this.#change[0] = events
    this.#change[TAG] = tag
    checked('epoll_ctl', control(this.descriptor, operation, fd, this.#changeOctets))
  }
}
