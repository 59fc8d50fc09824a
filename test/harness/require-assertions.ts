/** For every project of vitest: a test that has asserted nothing fails. */
export const REQUIRE_ASSERTIONS = {
  expect: { requireAssertions: true },
  setupFiles: ['test/harness/count-assertions.ts'],
}
