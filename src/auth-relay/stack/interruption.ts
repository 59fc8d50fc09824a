import { TemporaryFault } from '../../base/exit-status.ts'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Ctrl-C or SIGTERM while something is still starting: a promise that is rejected then, so that
 * what has begun can be undone.
 */
export class Interruption {
  readonly happened: Promise<never>
  readonly #listener: (signal: NodeJS.Signals) => void

  constructor() {
    const { promise, reject } = Promise.withResolvers<never>()
    this.happened = promise
    this.#listener = signal => reject(new TemporaryFault(`${signal} before everything was ready: stopped`))
    for (const signal of SIGNALS) process.on(signal, this.#listener)
    // Nobody may be waiting yet, or any more.
    promise.catch(() => {})
  }

  /** From now on the signals do again what they did before. */
  end(): void {
    for (const signal of SIGNALS) process.removeListener(signal, this.#listener)
  }
}
