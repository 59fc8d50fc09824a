import type { Random } from './random.ts'

/** One reader of bytes from outside the process. */
export type FuzzTarget = {
  readonly name: string
  /**
   * Makes one input by chance and has it read; throws where the reader does not keep its promise.
   */
  readonly attempt: (random: Random) => void
}

/** @throws with the input, so that it stands in the report. */
export function promise(holds: boolean, what: string, input: unknown): asserts holds {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(input)}`)
}

/** Runs the reader; an error of another kind than it promises is a crash. */
export function only<T>(
  expected: abstract new (...args: never[]) => Error,
  input: unknown,
  read: () => T,
): T | undefined {
  try {
    return read()
  } catch (error) {
    if (error instanceof expected) return undefined
    throw new Error(`crashed on ${JSON.stringify(input)}`, { cause: error })
  }
}
