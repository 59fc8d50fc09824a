/**
 * A bar on the terminal's standard error, drawn at most ten times a second; nothing at all where
 * there is no terminal.
 */
export class ProgressBar {
  readonly #total: number
  readonly #isTerminal: boolean
  #done = 0
  #drawn = 0

  constructor(total: number, isTerminal = process.stderr.isTTY === true) {
    this.#total = total
    this.#isTerminal = isTerminal && total > 0
  }

  advance(count: number): void {
    this.#done += count
    if (!this.#isTerminal || Date.now() - this.#drawn < 100) return
    this.#drawn = Date.now()
    const part = Math.min(1, this.#done / this.#total)
    const filled = Math.round(part * 40)
    process.stderr.write(
      `\r${'█'.repeat(filled)}${'░'.repeat(40 - filled)} ${String(Math.floor(part * 100)).padStart(3)} %`,
    )
  }

  /** Takes the bar away. */
  end(): void {
    if (this.#isTerminal && this.#drawn > 0) process.stderr.write('\r\u001b[K')
  }
}
