/**
 * The number of assertions that a test has made. Benchmarks use parts of this directory without a
 * test runner: nothing is counted there.
 */
let count = (): void => {}

/** A condition that the harness was asked to check holds; otherwise the harness has thrown. */
export const countAssertion = (): void => count()

/** Says how an assertion is counted. */
export const countAssertionsBy = (counter: () => void): void => {
  count = counter
}
