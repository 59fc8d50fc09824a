/**
 * Tells one listener that a client has gone away before he was served: an AbortSignal without its
 * weight, for there is one for every login.
 */
export class ClientGone {
  #hasHappened = false
  #listener: (() => void) | undefined

  get hasHappened(): boolean {
    return this.#hasHappened
  }

  /** Who is told, in place of the one before; undefined: nobody. Not called for what has happened already. */
  listen(listener: (() => void) | undefined): void {
    this.#listener = listener
  }

  /** The client is gone. */
  happen(): void {
    if (this.#hasHappened) return
    this.#hasHappened = true
    this.#listener?.()
  }
}
