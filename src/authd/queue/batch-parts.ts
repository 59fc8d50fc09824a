/**
 * The parts of a batch that the store refused as a whole because of a few of its logins, and the
 * size of the next batch.
 */

import type { IpAddress } from '../../wire/ip-address.ts'

type Addressed = { readonly ip: IpAddress }

/**
 * Logins of a batch, in order of arrival within each address. The logins of one address stay in one
 * part as long as the part has another address.
 */
export type Part<Login> = readonly (readonly Login[])[]

/** The logins of a part. */
export const loginsOf = <Login>(part: Part<Login>): Login[] => part.flat()

/**
 * The parts that are left to be stored, at first the whole batch. A part that the store refuses is
 * halved, until the logins that cause the refusal stand alone.
 */
export class BatchParts<Login extends Addressed> {
  readonly #parts: Part<Login>[]

  constructor(batch: readonly Login[]) {
    this.#parts = [[...Map.groupBy(batch, ({ ip }) => ip).values()]]
  }

  /** Removes and returns the next part; undefined if none is left. */
  next(): Part<Login> | undefined {
    return this.#parts.shift()
  }

  get isEmpty(): boolean {
    return this.#parts.length === 0
  }

  /** Removes and returns the logins of all parts. */
  takeAll(): Login[] {
    return this.#parts.splice(0).flatMap(loginsOf)
  }

  /**
   * Halves a part with a login whose data are invalid. Its halves are next, so that the logins of
   * one address keep their order.
   */
  halve(part: Part<Login>): void {
    const [only] = part
    if (part.length > 1 || only === undefined) this.#parts.unshift(...halves(part))
    else this.#parts.unshift(...halves(only).map(half => [half]))
  }

  /**
   * Halves a part of several addresses of which one is locked. Its halves come after all other
   * parts, because each refusal takes the whole wait for a lock: the free logins are stored first.
   */
  postpone(part: Part<Login>): void {
    this.#parts.push(...halves(part))
  }
}

function halves<T>(items: readonly T[]): [readonly T[], readonly T[]] {
  const middle = Math.ceil(items.length / 2)
  return [items.slice(0, middle), items.slice(middle)]
}

/** Logins in one transaction. */
export const MAX_BATCH = 1000
/** Divides the size of a batch after a search for locked addresses that did not end in time. */
const SMALLER = 8

/**
 * The largest number of logins in the next transaction. It outlasts a search for locked addresses
 * that the deadline ended, so that the next search begins with a smaller part.
 */
export class BatchSize {
  #most: number

  constructor(most: number) {
    this.#most = most
  }

  get most(): number {
    return this.#most
  }

  /** After a batch whose locked addresses, if any, were found in time. */
  grow(): void {
    this.#most = Math.min(this.#most * 2, MAX_BATCH)
  }

  /** After a batch whose locked addresses were not found in time. */
  shrink(): void {
    this.#most = Math.ceil(this.#most / SMALLER)
  }
}
