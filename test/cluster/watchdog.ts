import { execFileSync } from 'node:child_process'
import { constants, openSync } from 'node:fs'
import { Socket } from 'node:net'

/**
 * The watchdog of a node: a FIFO in place of /dev/watchdog, for Patroni's driver `testing`. As the
 * kernel's watchdog, it resets the machine if no keep-alive comes within the timeout, even if the
 * writer was killed. Only the letter `V` disarms it.
 */
export class Watchdog {
  readonly #socket: Socket
  readonly #reset: () => void
  #timeoutMs = 60_000
  #timer: NodeJS.Timeout | undefined

  constructor(path: string, reset: () => void) {
    execFileSync('mkfifo', [path])
    this.#reset = reset
    const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK)
    this.#socket = new Socket({ fd, readable: true, writable: false })
    this.#socket.setEncoding('latin1')
    this.#socket.on('data', text => this.#received(String(text)))
  }

  close(): void {
    clearTimeout(this.#timer)
    this.#socket.destroy()
  }

  /** `Ctimeout=10` and a line end set the timeout, `1` is a keep-alive, `V` disarms. */
  #received(text: string): void {
    clearTimeout(this.#timer)
    for (const { groups } of text.matchAll(/Ctimeout=(?<seconds>\d+)\n/g)) {
      this.#timeoutMs = Number(groups?.['seconds']) * 1000
    }
    if (text.endsWith('V')) return
    this.#timer = setTimeout(this.#reset, this.#timeoutMs)
  }
}
