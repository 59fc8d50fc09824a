import type { Checker, CheckRequest, Verdict } from './checker.ts'

type Used = { readonly checker: Checker; readonly running: Set<Promise<Verdict>> }

/** A checker that another one can replace while checks run. The old one is closed after its last check. */
export class ReplaceableChecker implements Checker {
  #used: Used

  constructor(checker: Checker) {
    this.#used = { checker, running: new Set() }
  }

  check(request: CheckRequest): Promise<Verdict> {
    const { checker, running } = this.#used
    const verdict = checker.check(request).finally(() => running.delete(verdict))
    running.add(verdict)
    return verdict
  }

  /** Puts another checker in force for checks from now on. Fulfilled when the old one is closed. */
  async use(checker: Checker): Promise<void> {
    const old = this.#used
    this.#used = { checker, running: new Set() }
    await Promise.allSettled(old.running)
    await old.checker.close()
  }

  close(): Promise<void> | void {
    return this.#used.checker.close()
  }
}
