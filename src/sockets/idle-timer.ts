/** Calls back once nothing has happened for so long. Not set, or cleared, it does nothing. */
export class IdleTimer {
  #timer: NodeJS.Timeout | undefined

  /** Begins anew with so many milliseconds. */
  set(milliseconds: number, idle: () => void): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(idle, milliseconds)
  }

  /** Something has happened: the time begins again. */
  refresh(): void {
    this.#timer?.refresh()
  }

  clear(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }
}
