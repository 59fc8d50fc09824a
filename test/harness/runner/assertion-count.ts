/**
 * The number of assertions that a test has made. Benchmarks use parts of this directory without a
 * test runner, so nothing is counted there.
 */
let count = (): void => {}

/**
 * Counts a condition that the harness has checked. The harness throws if the condition is false.
 */
export const countAssertion = (): void => count()

/** Sets the function that counts an assertion. */
export const countAssertionsBy = (counter: () => void): void => {
  count = counter
}
