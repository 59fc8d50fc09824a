/**
 * A one-listener cancellation flag for a client that disconnects before the answer. An AbortSignal
 * per login was measurably slower.
 */
export class ClientDisconnect {
  #hasDisconnected = false
  #listener: (() => void) | undefined

  get hasDisconnected(): boolean {
    return this.#hasDisconnected
  }

  /** Replaces the listener; undefined removes it. Not called for an earlier event. */
  listen(listener: (() => void) | undefined): void {
    this.#listener = listener
  }

  /** The client has disconnected. */
  signal(): void {
    if (this.#hasDisconnected) return
    this.#hasDisconnected = true
    this.#listener?.()
  }
}
