/**
 * The logins that wait while the store is unavailable: which login is kept, and which one makes
 * room.
 */

import type { IpAddress } from '../../wire/ip-address.ts'

/** A login that waits. `place`: its arrival number. */
type Waiting = { readonly ip: IpAddress; readonly place: number }

/** The logins that had to make room for one that was added. */
export type Displaced<Login> = {
  /** The older login of the same address, which may be the one that was added. */
  readonly replaced: Login | undefined
  /** The login of the address that waited longest, because too many addresses wait. */
  readonly dropped: Login | undefined
}

/**
 * The newest login of each address, in the order in which they were added, of at most `most`
 * addresses. Every step takes the same time for any number of them.
 */
export class NewestLogins<Login extends Waiting> implements Iterable<Login> {
  readonly #most: number
  readonly #logins = new Map<IpAddress, Login>()
  /**
   * Iterator that finds the oldest login. One iterator serves all calls, because a new one would
   * first pass every login that was removed before.
   */
  #walk = this.#logins.values()

  constructor(most: number) {
    this.#most = most
  }

  get size(): number {
    return this.#logins.size
  }

  has(ip: IpAddress): boolean {
    return this.#logins.has(ip)
  }

  /** True if these logins can be added without dropping another address. */
  hasRoomFor(logins: readonly Login[]): boolean {
    const added = new Set(logins.map(({ ip }) => ip).filter(ip => !this.#logins.has(ip)))
    return this.#logins.size + added.size <= this.#most
  }

  [Symbol.iterator](): IterableIterator<Login> {
    return this.#logins.values()
  }

  /** Adds a login, unless a newer login of its address waits. */
  add(login: Login): Displaced<Login> {
    const other = this.#logins.get(login.ip)
    if (other !== undefined && other.place > login.place) return { replaced: login, dropped: undefined }
    this.#logins.delete(login.ip)
    const dropped = this.#logins.size >= this.#most ? this.#nextOldest() : undefined
    if (dropped !== undefined) this.#logins.delete(dropped.ip)
    this.#logins.set(login.ip, login)
    return { replaced: other, dropped }
  }

  /** Removes and returns the oldest logins, at most `most`. */
  take(most: number = this.size): Login[] {
    const taken: Login[] = []
    for (const login of this.#logins.values()) {
      if (taken.length === most) break
      this.#logins.delete(login.ip)
      taken.push(login)
    }
    if (this.#logins.size === 0) this.#walk = this.#logins.values()
    return taken
  }

  #nextOldest(): Login | undefined {
    let next = this.#walk.next()
    if (next.done === true) {
      this.#walk = this.#logins.values()
      next = this.#walk.next()
    }
    return next.value
  }
}
