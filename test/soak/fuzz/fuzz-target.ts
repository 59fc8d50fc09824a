import type { Random } from './random.ts'

/** One reader of bytes from outside the process. */
export type FuzzTarget = {
  readonly name: string
  /**
   * Makes one random input and runs the reader with it; throws if the reader breaks its contract.
   */
  readonly attempt: (random: Random) => void
}

/** @throws an error that contains the input, for the report. */
export function promise(holds: boolean, what: string, input: unknown): asserts holds {
  if (!holds) throw new Error(`${what}: ${JSON.stringify(input)}`)
}

/** Runs the reader. An error of an unexpected kind counts as a crash. */
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
