import { closeSync } from 'node:fs'

/** A socket of the kernel that one holder uses at a time. It is closed or handed over once. */
export interface OpenSocket {
  /**
   * For system calls, and for the standard descriptors of a child. Throws once the socket is closed
   * or handed over.
   */
  readonly descriptor: number
  /** Throws if the socket is closed already. */
  close(): void
}

/** Descriptors of this process that have an owner. */
const owned = new Set<number>()

/**
 * A descriptor with one owner. It is taken once and closed or released once; every use after that
 * throws, because the kernel
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

  get descriptor(): number {
    if (!this.#isOwned) throw new Error(`descriptor ${this.#number} is used after its owner released it`)
    return this.#number
  }

  close(): void {
    closeSync(this.release())
  }

  /** The descriptor is the caller's from now on. */
  release(): number {
    const { descriptor } = this
    this.#isOwned = false
    owned.delete(descriptor)
    return descriptor
  }
}
