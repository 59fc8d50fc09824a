/** Ownership of descriptors: each open one has one owner, and is closed or released once. */
import { closeSync } from 'node:fs'
import { openSocketPair } from '../libc/sockets.ts'

/** An open socket with one owner. */
export interface OpenSocket {
  /**
   * For system calls, and for the standard descriptors of a child. Throws after the socket was
   * closed or handed over.
   */
  readonly descriptor: number
  /** Throws if the socket is already closed or handed over. */
  close(): void
}

/** Descriptors of this process that have an owner. */
const owned = new Set<number>()

/**
 * A descriptor with one owner. Every use after `close` or `release` throws, because the kernel
 * gives the number to the next open file, which may be the connection of another client.
 */
export class OwnedDescriptor implements OpenSocket {
  readonly #number: number
  #isOwned = true

  /** Takes the descriptor over. Throws if it has an owner already. */
  constructor(descriptor: number) {
    if (owned.has(descriptor)) throw new Error(`descriptor ${descriptor} has an owner already`)
    owned.add(descriptor)
    this.#number = descriptor
  }

  /**
   * Makes a pair of connected Unix stream sockets. They are blocking, because a program may run on
   * one of them. Throws SystemCallError (EMFILE).
   */
  static pair(): readonly [OwnedDescriptor, OwnedDescriptor] {
    const [one, other] = openSocketPair()
    return [new OwnedDescriptor(one), new OwnedDescriptor(other)]
  }

  /** False after `close` or `release`. */
  get isOwned(): boolean {
    return this.#isOwned
  }

  get descriptor(): number {
    if (!this.#isOwned) throw new Error(`descriptor ${this.#number} is used after its owner released it`)
    return this.#number
  }

  close(): void {
    closeSync(this.release())
  }

  /** Returns the descriptor. The caller owns it from now on. */
  release(): number {
    const { descriptor } = this
    this.#isOwned = false
    owned.delete(descriptor)
    return descriptor
  }
}
