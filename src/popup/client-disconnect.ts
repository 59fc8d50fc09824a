/**
 * A one-listener cancellation flag for a client that disconnects before the answer. An AbortSignal
 * per login was measurably slower.
 */
export class ClientDisconnect {
  #hasHappened = false
  #listener: (() => void) | undefined

  get hasHappened(): boolean {
    return this.#hasHappened
  }

  /** Replaces the listener; undefined removes it. Not called for an earlier event. */
  listen(listener: (() => void) | undefined): void {
    this.#listener = listener
  }

  /** The client has disconnected. */
  happen(): void {
    if (this.#hasHappened) return
    this.#hasHappened = true
    this.#listener?.()
  }
}
