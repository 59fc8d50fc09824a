/** Fails each test without an assertion; used by every project of vitest. */
export const REQUIRE_ASSERTIONS = {
  expect: { requireAssertions: true },
  setupFiles: ['test/harness/runner/count-assertions.ts'],
}
