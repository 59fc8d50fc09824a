/** Queries of many callers, answered by few statements. */

export type QueryBatchesOptions<Query, Answer> = {
  /**
   * Runs one statement for all queries and returns the answers in the same order. The signal
   * aborts when every caller has left.
   */
  readonly run: (queries: readonly Query[], signal: AbortSignal) => Promise<readonly (Answer | undefined)[]>
  /** Most statements at the same time. */
  readonly statements: number
  /** Most queries in one statement. */
  readonly most: number
}

type Caller<Query, Answer> = {
  readonly query: Query
  readonly resolve: (answer: Answer | undefined) => void
  readonly reject: (reason: unknown) => void
  /** Takes the caller out of the queue, or out of its statement. */
  leave: () => void
}

/**
 * A query runs at once and alone if a statement is free. Queries that arrive while every statement
 * runs wait, and the next statement runs all of them. So a lone query has no delay, and a busy
 * server gets fewer and larger statements instead of a growing queue.
 *
 * A query never joins a statement that has begun, so no answer is older than its query.
 *
 * The number of waiting queries has no bound here: the caller bounds its open queries.
 */
export class QueryBatches<Query, Answer> {
  readonly #options: QueryBatchesOptions<Query, Answer>
  readonly #waiting = new Set<Caller<Query, Answer>>()
  #running = 0

  constructor(options: QueryBatchesOptions<Query, Answer>) {
    this.#options = options
  }

  /**
   * Resolves with the answer, which is undefined if the statement found none. Rejects with the
   * error of the statement, or with the reason of the signal as soon as it aborts. A caller that
   * aborts does not end the statement of the others.
   */
  run(query: Query, signal?: AbortSignal): Promise<Answer | undefined> {
    if (signal?.aborted === true) return Promise.reject(signal.reason)
    const { promise, resolve, reject } = Promise.withResolvers<Answer | undefined>()
    const caller = { query, resolve, reject, leave: (): void => void this.#waiting.delete(caller) }
    const abort = (): void => {
      reject(signal?.reason)
      caller.leave()
    }
    signal?.addEventListener('abort', abort, { once: true })
    this.#waiting.add(caller)
    this.#begin()
    return promise.finally(() => signal?.removeEventListener('abort', abort))
  }

  #begin(): void {
    while (this.#running < this.#options.statements && this.#waiting.size > 0) {
      const batch: Caller<Query, Answer>[] = []
      for (const caller of this.#waiting) {
        if (batch.length === this.#options.most) break
        batch.push(caller)
        this.#waiting.delete(caller)
      }
      this.#running += 1
      void this.#run(batch)
    }
  }

  async #run(batch: readonly Caller<Query, Answer>[]): Promise<void> {
    const everyCallerLeft = new AbortController()
    let callers = batch.length
    for (const caller of batch) {
      caller.leave = () => {
        callers -= 1
        if (callers === 0) everyCallerLeft.abort(new Error('no caller waits for the answer'))
      }
    }
    try {
      const queries = batch.map(({ query }) => query)
      const answers = await this.#options.run(queries, everyCallerLeft.signal)
      for (const [index, { resolve }] of batch.entries()) resolve(answers[index])
    } catch (error) {
      for (const { reject } of batch) reject(error)
    } finally {
      this.#running -= 1
      this.#begin()
    }
  }
}
