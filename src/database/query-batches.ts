/** Queries of many callers, answered by few statements. */

export type QueryBatchesOptions<Question, Answer> = {
  /**
   * Runs one statement for all questions and returns the answers in the same order. The signal
   * aborts when every caller has left.
   */
  readonly ask: (questions: readonly Question[], signal: AbortSignal) => Promise<readonly (Answer | undefined)[]>
  /** Most statements at the same time. */
  readonly statements: number
  /** Most questions in one statement. */
  readonly most: number
}

type Caller<Question, Answer> = {
  readonly question: Question
  readonly resolve: (answer: Answer | undefined) => void
  readonly reject: (reason: unknown) => void
  /** Takes the caller out of the queue, or out of its statement. */
  leave: () => void
}

/**
 * A question that finds a statement free is asked at once and alone. Questions that arrive while
 * every statement runs wait, and the next statement asks all of them. So a lone question has no
 * delay, and a busy server gets fewer and larger statements instead of a growing queue.
 *
 * A question never joins a statement that has begun, so no answer is older than its question.
 *
 * The number of waiting questions has no bound here: the caller bounds its open questions.
 */
export class QueryBatches<Question, Answer> {
  readonly #options: QueryBatchesOptions<Question, Answer>
  readonly #waiting = new Set<Caller<Question, Answer>>()
  #running = 0

  constructor(options: QueryBatchesOptions<Question, Answer>) {
    this.#options = options
  }

  /**
   * Resolves with the answer, which is undefined if the statement found none. Rejects with the
   * error of the statement, or with the reason of the signal as soon as it aborts. A caller that
   * aborts does not end the statement of the others.
   */
  ask(question: Question, signal?: AbortSignal): Promise<Answer | undefined> {
    if (signal?.aborted === true) return Promise.reject(signal.reason)
    const { promise, resolve, reject } = Promise.withResolvers<Answer | undefined>()
    const caller = { question, resolve, reject, leave: (): void => void this.#waiting.delete(caller) }
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
      const batch: Caller<Question, Answer>[] = []
      for (const caller of this.#waiting) {
        if (batch.length === this.#options.most) break
        batch.push(caller)
        this.#waiting.delete(caller)
      }
      this.#running += 1
      void this.#run(batch)
    }
  }

  async #run(batch: readonly Caller<Question, Answer>[]): Promise<void> {
    const everyCallerLeft = new AbortController()
    let callers = batch.length
    for (const caller of batch) {
      caller.leave = () => {
        callers -= 1
        if (callers === 0) everyCallerLeft.abort(new Error('no caller waits for the answer'))
      }
    }
    try {
      const questions = batch.map(({ question }) => question)
      const answers = await this.#options.ask(questions, everyCallerLeft.signal)
      for (const [index, { resolve }] of batch.entries()) resolve(answers[index])
    } catch (error) {
      for (const { reject } of batch) reject(error)
    } finally {
      this.#running -= 1
      this.#begin()
    }
  }
}
