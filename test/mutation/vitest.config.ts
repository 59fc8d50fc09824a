import { defineConfig } from 'vitest/config'
import { REQUIRE_ASSERTIONS } from '../harness/runner/require-assertions.ts'
import { MUTATION_TESTS, TESTS_LEFT_OUT } from './tests.ts'

/**
 * For `stryker run test/mutation/stryker.json --testRunner vitest`, which checks
 * in-process-runner.ts.
 */
export default defineConfig({
  test: {
    ...REQUIRE_ASSERTIONS,
    include: MUTATION_TESTS,
    exclude: [
      ...TESTS_LEFT_OUT,
      // Changes the time zone, which a thread cannot do.
      'test/unit/syslog/stamp-time.test.ts',
    ],
    testTimeout: 60_000,
  },
})
